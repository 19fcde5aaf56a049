"""A neuron over a sequence on a fused backend: the formula inside the kernel, or a callable between two of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ... import formulas
from ...formulas import Formula
from ..spike import reference as elementwise
from ..spike.autograd import step
from .autograd import CubaWith, LeakyWith, cuba, leaky

__all__ = ["Emission", "ResetsDifferError", "fused_cuba", "fused_leaky"]


class ResetsDifferError(ValueError):
    """A callable fires elsewhere than strictly above the threshold, where the kernels reset."""


@dataclass(frozen=True)
class Emission:
    """How membrane potential minus threshold becomes spikes: by a formula, or by any callable."""

    formula: Formula | None = None
    values: tuple[float | Tensor, ...] = ()
    smooth: bool = False
    call: Callable[[Tensor], Tensor] | None = None

    def spikes(self, shift: Tensor) -> Tensor:
        """The neuron's output, of the shape of `shift`."""
        if self.formula is not None:
            return step(shift, self.formula, self.smooth, *self.values)
        spikes = self.call(shift)
        if not isinstance(spikes, Tensor) or spikes.shape != shift.shape:
            got = f"shape {tuple(spikes.shape)}" if isinstance(spikes, Tensor) else type(spikes).__name__
            remedy = "a factory of surrogates has to be called once, as in atan()"
            raise TypeError(f"surrogate: expected a callable from a tensor to spikes of its shape, got {got}; {remedy}")
        return spikes

    def resets(self, shift: Tensor) -> Tensor:
        """What a reset takes: zeros and ones with the formula's gradient, or what a callable gives."""
        return self.spikes(shift) if self.formula is None else step(shift, self.formula, False, *self.values)

    @property
    def in_kernel(self) -> bool:
        """Whether the kernels can evaluate it themselves."""
        return (
            self.formula is not None
            and formulas.is_registered(self.formula)
            and not any(isinstance(value, Tensor) for value in self.values)
            and self.formula.portable
        )

    def _hard(self, shift: Tensor) -> Tensor:
        """A callable's spikes; ResetsDifferError unless they are those by which the kernels reset."""
        spikes = self.spikes(shift)
        # Straight-through sums such as 1 + soft - soft.detach() are 1 but for rounding.
        hard = elementwise.heaviside(shift.detach())
        if not torch.allclose(spikes.detach().to(hard.dtype), hard, rtol=0, atol=1e-6):
            expected = "1 above the threshold and else 0"
            raise ResetsDifferError(f"surrogate: expected {expected}, got other spikes; use backend='torch'")
        return spikes

    def over_trace(self, shift: Tensor) -> tuple[Tensor, Tensor]:
        """Spikes, differentiable by what the emission itself has learnable, and their derivatives by `shift`."""
        if self.formula is not None:
            return self.spikes(shift), elementwise.derivative(shift, self.formula, self.values)
        if not torch.is_grad_enabled():
            return self._hard(shift), shift  # nobody will ask for the derivatives
        shift = shift.requires_grad_()
        spikes = self._hard(shift)
        if not spikes.requires_grad:
            return spikes, torch.zeros_like(shift)
        ones = torch.ones_like(spikes)
        slopes = torch.autograd.grad(spikes, shift, ones, retain_graph=True, materialize_grads=True)[0]
        return spikes if _has_other_leaves(spikes, shift) else spikes.detach(), slopes


def _has_other_leaves(output: Tensor, leaf: Tensor) -> bool:
    """Whether the output also depends on a leaf other than this one, as on a learnable slope."""
    seen, waiting = set(), [output.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if getattr(node, "variable", leaf) is not leaf:
            return True
        waiting += [before for before, _ in node.next_functions]
    return False


def _kernel_formula(emission: Emission) -> tuple[str, Tensor, bool]:
    # Where only the dynamics are wanted of the kernel, any formula does.
    name = emission.formula.name if emission.in_kernel else "straight_through"
    values = emission.values if emission.in_kernel else formulas.get(name).defaults.values()
    # Of all operations with a number the compiler keeps products variable, not the making of tensors.
    one = torch.ones((), dtype=torch.float64, device="cpu")
    made = [one * value for value in values]
    return name, torch.stack(made) if made else one.expand(0), emission.in_kernel and emission.smooth


def fused_leaky(
    x: Tensor, beta: Tensor, threshold: Tensor, v0: Tensor, emission: Emission, reset: str, delay: bool, keep: bool,
    save_dtype: torch.dtype, backend: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Currents (T, B, ...), flat parameters and state (N,), to spikes and potentials (T, B, ...), last potential (N,).

    The potentials are empty unless `keep`.
    """
    flat = x.flatten(1)
    name, values, smooth = _kernel_formula(emission)
    if emission.in_kernel:
        spikes, _, potentials, last = leaky(
            flat, beta, threshold, v0, name, values, reset, delay, smooth, keep, save_dtype, backend
        )
        return spikes.view(x.shape), potentials.view(x.shape) if keep else potentials, last
    with torch.no_grad():
        _, trace, potentials, last = leaky(
            flat, beta, threshold, v0, name, values, reset, delay, smooth, keep, save_dtype, backend
        )
        shift = trace.to(v0.dtype) - threshold
    steps, slopes = emission.over_trace(shift.view(x.shape))
    spikes, potentials, last = LeakyWith.apply(
        flat, beta, threshold, v0, steps.reshape(flat.shape), trace, slopes.reshape(flat.shape), potentials, last,
        reset, delay, backend,
    )  # fmt: skip
    return spikes.to(x.dtype).view(x.shape), potentials.view(x.shape) if keep else potentials, last


def fused_cuba(
    x: Tensor, parameters: Tensor, v0: Tensor, i0: Tensor, emission: Emission, detach: bool, save_dtype: torch.dtype,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Currents (T, B, ...), parameters (5, N), states (N,), to spikes (T, B, ...), last potential and current (N,)."""
    flat = x.flatten(1)
    name, values, smooth = _kernel_formula(emission)
    if emission.in_kernel:
        spikes, _, v, i = cuba(flat, parameters, v0, i0, name, values, smooth, detach, save_dtype, backend)
        return spikes.view(x.shape), v, i
    with torch.no_grad():
        _, trace, v, i = cuba(flat, parameters, v0, i0, name, values, smooth, detach, save_dtype, backend)
        shift = trace.to(v0.dtype) - parameters[3]
    steps, slopes = emission.over_trace(shift.view(x.shape))
    spikes, v, i = CubaWith.apply(
        flat, parameters, v0, i0, steps.reshape(flat.shape), trace, slopes.reshape(flat.shape), v, i, detach, backend
    )
    return spikes.to(x.dtype).view(x.shape), v, i
