"""A neuron over a sequence on a fused backend: the formula inside the kernel, or a callable between two of them."""

from __future__ import annotations

import torch
from torch import Tensor

from ...surrogate import Surrogate, elementwise
from ...surrogate.formula import is_registered
from .autograd import CubaWith, LeakyWith, cuba, leaky


class ResetsDifferError(ValueError):
    """A callable fires elsewhere than strictly above the threshold, where the kernels reset."""


def is_in_kernel(surrogate: Surrogate) -> bool:
    """Whether the kernels can evaluate a surrogate themselves."""
    formula = surrogate.formula
    return (
        formula is not None
        and formula.portable
        and formula.is_unchanged()
        and is_registered(formula)
        and set(surrogate.numbers()) == {"hardness", *formula.parameters}
    )


def _hard(surrogate: Surrogate, shift: Tensor) -> Tensor:
    """Return a callable's spikes; raise ResetsDifferError unless the kernels reset by the same."""
    spikes = surrogate(shift)
    # Straight-through sums such as 1 + soft - soft.detach() are 1 but for rounding.
    if not torch.allclose(spikes.detach(), elementwise.heaviside(shift.detach()), rtol=0, atol=1e-6):
        expected = "1 above the threshold and else 0"
        raise ResetsDifferError(f"surrogate: expected {expected}, got other spikes; use backend='torch'")
    return spikes


def _over_trace(surrogate: Surrogate, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Spikes, differentiable by what the surrogate itself has learnable, and their derivatives by `shift`."""
    if surrogate.formula is not None:
        return surrogate(shift), elementwise.derivative(shift, surrogate.formula, tuple(surrogate.values().values()))
    if not torch.is_grad_enabled():
        return _hard(surrogate, shift), shift  # nobody will ask for the derivatives
    shift = shift.requires_grad_()
    spikes = _hard(surrogate, shift)
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


def _kernel_formula(surrogate: Surrogate) -> tuple[str, Tensor] | None:
    """Return a formula's name, and the hardness and its parameters, as the operators take them; None for others."""
    formula = surrogate.formula
    if formula is None or not is_in_kernel(surrogate):
        return None
    # Of all operations with a number the compiler keeps products variable, not the making of tensors.
    one = torch.ones((), dtype=torch.float64, device="cpu")
    return formula.name, torch.stack([one * value for value in surrogate.numbers().values()])


def _dynamics_alone() -> tuple[str, Tensor]:
    """Return, in the form of `_kernel_formula`, any formula at hardness 1, of which the kernel needs none."""
    return "straight_through", torch.ones(2, dtype=torch.float64, device="cpu")


def _unrounded(surrogate: Surrogate, save_dtype: torch.dtype, dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of a trace that spikes are computed from; rounding would change smooth ones."""
    return dtype if save_dtype != dtype and surrogate.hardness < 1 else save_dtype


def fused_leaky(
    x: Tensor, beta: Tensor, threshold: Tensor, v0: Tensor, surrogate: Surrogate, reset: str, delay: bool, keep: bool,
    save_dtype: torch.dtype, backend: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Currents (T, B, ...), flat parameters and state (N,), to spikes and potentials (T, B, ...), last potential (N,).

    The potentials are empty unless `keep`.
    """
    flat = x.flatten(1)
    if formula := _kernel_formula(surrogate):
        spikes, _, potentials, last = leaky(
            flat, beta, threshold, v0, *formula, reset, delay, keep, save_dtype, backend
        )
        return spikes.view(x.shape), potentials.view(x.shape) if keep else potentials, last
    save_dtype = _unrounded(surrogate, save_dtype, v0.dtype)
    with torch.no_grad():
        _, trace, potentials, last = leaky(
            flat, beta, threshold, v0, *_dynamics_alone(), reset, delay, keep, save_dtype, backend
        )
        shift = trace.to(v0.dtype) - threshold
    steps, slopes = _over_trace(surrogate, shift.view(x.shape))
    spikes, potentials, last = LeakyWith.apply(
        flat, beta, threshold, v0, steps.reshape(flat.shape), trace, slopes.reshape(flat.shape), potentials, last,
        reset, delay, backend,
    )  # fmt: skip
    return spikes.to(x.dtype).view(x.shape), potentials.view(x.shape) if keep else potentials, last


def fused_cuba(
    x: Tensor, parameters: Tensor, v0: Tensor, i0: Tensor, surrogate: Surrogate, detach: bool, save_dtype: torch.dtype,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Currents (T, B, ...), parameters (5, N), states (N,), to spikes (T, B, ...), last potential and current (N,)."""
    flat = x.flatten(1)
    if formula := _kernel_formula(surrogate):
        spikes, _, v, i = cuba(flat, parameters, v0, i0, *formula, detach, save_dtype, backend)
        return spikes.view(x.shape), v, i
    save_dtype = _unrounded(surrogate, save_dtype, v0.dtype)
    with torch.no_grad():
        _, trace, v, i = cuba(flat, parameters, v0, i0, *_dynamics_alone(), detach, save_dtype, backend)
        shift = trace.to(v0.dtype) - parameters[3]
    steps, slopes = _over_trace(surrogate, shift.view(x.shape))
    spikes, v, i = CubaWith.apply(
        flat, parameters, v0, i0, steps.reshape(flat.shape), trace, slopes.reshape(flat.shape), v, i, detach, backend
    )
    return spikes.to(x.dtype).view(x.shape), v, i
