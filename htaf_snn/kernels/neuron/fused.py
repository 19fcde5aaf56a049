"""A neuron over a sequence by its kernels: the formula inside of them, or a callable between the two passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...neurons.base import Neuron
from ...surrogate import Surrogate, elementwise
from ...surrogate.formula import Formula, is_registered
from .. import _dispatch
from . import recurrent
from .autograd import EagerNeuron, NeuronWith, neuron
from .kernel import Kernel, chosen
from .source import Sources
from .trace import UnsupportedError


class ResetsDifferError(ValueError):
    """A callable fires elsewhere than strictly above the threshold, where the kernels reset."""


def is_in_kernel(surrogate: Surrogate) -> bool:
    """Whether the kernels can evaluate a surrogate themselves."""
    return _in_kernel(surrogate) is not None


def _in_kernel(surrogate: Surrogate) -> tuple[Formula, Mapping[str, float | Tensor]] | None:
    """Return the formula that the kernels evaluate for a surrogate, with its numbers; None if they cannot."""
    formula, numbers = surrogate.in_kernels() or (None, {})
    if formula is None or not (formula.portable and formula.is_unchanged() and is_registered(formula)):
        return None
    return (formula, numbers) if set(numbers) == {"hardness", *formula.parameters} else None


def _hard(surrogate: Surrogate, shift: Tensor) -> Tensor:
    """Return a callable's spikes; raise ResetsDifferError unless the kernels reset by the same."""
    spikes = surrogate(shift)
    found, strict = spikes.detach(), elementwise.heaviside(shift.detach())
    # Straight-through sums such as 1 + soft - soft.detach() are 1 but for rounding.
    if not (torch.equal(found, strict) or torch.allclose(found, strict, rtol=0, atol=1e-6)):
        expected = "1 above the threshold and else 0"
        raise ResetsDifferError(f"surrogate: expected {expected}, got other spikes; use backend='torch'")
    return spikes


def _over_potentials(surrogate: Surrogate, shift: Tensor) -> tuple[Tensor, Tensor]:
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


def _values(named: Mapping[str, float | Tensor]) -> Tensor:
    """Return the hardness and the formula's parameters as the operators take them."""
    # Of all operations with a number the compiler keeps products variable, not the making of tensors.
    if not torch.compiler.is_compiling():
        return torch.tensor([float(number) for number in named.values()], dtype=torch.float64, device="cpu")
    one = torch.ones((), dtype=torch.float64, device="cpu")
    return torch.stack([one * number for number in named.values()])


class _Rows:
    """Neurons (B, ...) as rows of the kernels, in the order in which the inputs (T, B, ...) lie in memory.

    The kernels treat all neurons alike, so inputs of a convolution in channels-last format need not be copied.
    """

    def __init__(self, x: Tensor):
        order = list(range(1, x.ndim))
        if not x.is_contiguous() and not _is_traced(x):
            strides = x.stride()
            dense = sorted(order, key=lambda axis: (-strides[axis], axis))
            order = dense if x.permute(0, *dense).is_contiguous() else order
        self.order = [axis - 1 for axis in order]
        self.shape = torch.Size(x.shape[axis] for axis in order)
        self.inner = x.shape[1:]

    def of(self, tensor: Tensor) -> Tensor:
        """Return values of each neuron (B, ...) as (N,)."""
        return tensor.expand(self.inner).permute(self.order).reshape(-1)

    def of_steps(self, tensor: Tensor) -> Tensor:
        """Return values (T, B, ...) as (T, N)."""
        return tensor.permute(0, *(axis + 1 for axis in self.order)).flatten(1)

    def of_parameter(self, tensor: Tensor) -> Tensor:
        """Return a parameter as one number, or one per neuron."""
        return tensor.reshape(()) if tensor.numel() == 1 else self.of(tensor)

    def restored(self, rows: Tensor) -> Tensor:
        """Return rows (..., N) as (..., B, ...)."""
        first = rows.ndim - 1
        inverse = (first + self.order.index(axis) for axis in range(len(self.order)))
        return rows.unflatten(-1, self.shape).permute(*range(first), *inverse)


def _kernel(
    definition: Neuron, parameters: Sequence[Tensor], options: Mapping[str, Any], surrogate: Surrogate | None,
    save_dtype: torch.dtype | None, **flags: bool,
) -> tuple[Kernel, Tensor]:  # fmt: skip
    """Return the kernel of a neuron, and the surrogate's numbers, for parameters as the operators take them."""
    named = zip(definition.prepared, parameters, strict=True)
    learned = tuple(name for name, tensor in named if tensor.requires_grad and torch.is_grad_enabled())
    inside = None if surrogate is None else _in_kernel(surrogate)
    is_given = surrogate is not None and inside is None
    formula, numbers = ("", {"hardness": 1.0}) if inside is None else (inside[0].name, inside[1])
    is_smooth = isinstance(numbers["hardness"], Tensor) or numbers["hardness"] != 1
    flags |= {"is_smooth": is_smooth, "is_given": is_given}
    # Smooth spikes of a callable are computed from the potentials again, which must then be exact.
    flags |= {"is_rounded": save_dtype is not None and (inside is not None or surrogate is None or surrogate.is_hard())}
    kernel = Kernel(
        definition.key, chosen(definition, options), learned, formula, tuple(f for f, holds in flags.items() if holds)
    )
    return kernel, _values(numbers)


def sources(
    definition: Neuron, parameters: Mapping[str, Tensor], options: Mapping[str, Any], surrogate: Surrogate | None,
    save_dtype: torch.dtype | None, is_recurrent: bool, backend: str,
) -> Sources:  # fmt: skip
    """Return the texts of the kernels by which a neuron with these parameters runs."""
    given = [parameters[name].flatten() if parameters[name].numel() > 1 else parameters[name].reshape(())
             for name in definition.prepared]  # fmt: skip
    flags = {"is_recurrent": True} if is_recurrent else {}
    kernel, _ = _kernel(definition, given, options, surrogate, save_dtype, **flags)
    return kernel.sources(kernel.scalars(given), backend)


def _is_traced(*tensors: Tensor) -> bool:
    """Whether a compiler, a tracer or a subclass of tensors has to see an operator."""
    is_watched = torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0
    return is_watched or any(type(tensor) not in (Tensor, torch.nn.Parameter) for tensor in tensors)


def run(
    definition: Neuron, x: Tensor, states: Sequence[Tensor], parameters: Mapping[str, Tensor],
    options: Mapping[str, Any], surrogate: Surrogate | None, keep: bool, save_dtype: torch.dtype | None, backend: str,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Run a neuron over inputs (T, B, ...), from states (B, ...) and with parameters that broadcast to them.

    Returns:
        The output (T, B, ...) in the dtype of x, the last states, each (B, ...), and if `keep` those after each step.
    """
    rows = _Rows(x)
    flat, start = rows.of_steps(x), [rows.of(state) for state in states]
    given = [rows.of_parameter(parameters[name]) for name in definition.prepared]
    kernel, values = _kernel(definition, given, options, surrogate, save_dtype, keeps=keep)
    if not kernel.is_given:
        if _is_traced(flat, *start, *given):
            output, _, trajectory, end = neuron(flat, start, given, str(kernel), values, backend)
        else:
            output, trajectory, end = EagerNeuron.apply(flat, str(kernel), values, backend, len(start), *start, *given)
    else:
        assert surrogate is not None
        with torch.no_grad():
            shift, saved, trajectory, end = neuron(flat, start, given, str(kernel), values, backend)
        spikes, slopes = _over_potentials(surrogate, rows.restored(shift))
        output, trajectory, end = NeuronWith.apply(
            flat, rows.of_steps(spikes), saved, rows.of_steps(slopes), trajectory, end, str(kernel),
            tuple(definition.prepared.index(name) for name in kernel.learned), values, backend, len(start), *start,
            *given,
        )  # fmt: skip
        output = output.to(x.dtype)
    kept = rows.restored(trajectory).unbind() if keep else ()
    return rows.restored(output), *rows.restored(end).unbind(), *kept


def spikes_as_bits(
    definition: Neuron,
    x: Tensor,
    states: Sequence[Tensor],
    parameters: Mapping[str, Tensor],
    options: Mapping[str, Any],
) -> Tensor | None:
    """Run a spiking neuron over features (T, B, F) to words (T, B, ceil(F / 64)), at hardness 1, without a gradient.

    Args:
        definition: the neuron.
        x: float32, on the CPU.
        states: before the first time step, each () or broadcasting to (B, F).
        parameters: of the update, likewise.
        options: of the neuron.

    Returns:
        None where no kernel computes it: for parameters that differ between samples, and updates with functions.
    """
    features = x.shape[2:]
    if any(value.numel() > 1 and value.shape != features for value in (*parameters.values(), *states)):
        return None
    given = [parameters[name] for name in definition.prepared]
    given = [value.reshape(()) if value.numel() == 1 else value.contiguous() for value in given]
    start = torch.stack([value.reshape(-1).expand(features) for value in states])
    kernel = Kernel(definition.key, chosen(definition, options), (), "", ())
    return _dispatch.load("numba", __package__).spikes(x.contiguous(), start, given, kernel)


def run_recurrent(
    definition: Neuron, x: Tensor, spikes: Tensor, states: Sequence[Tensor], parameters: Mapping[str, Tensor],
    options: Mapping[str, Any], surrogate: Surrogate, weight: Tensor, bias: Tensor | None, kind: str, keep: bool,
    save_dtype: torch.dtype | None, backend: str,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Run a recurrent neuron, as `run`, from its spikes before the first time step (B, ...)."""
    if not is_in_kernel(surrogate):
        raise UnsupportedError(
            f"surrogate: expected one of htaf_snn with numbers as parameters, such as 'htaf', for recurrent neurons, "
            f"whose spikes return before the next potentials are known, got {surrogate!r}; or backend='torch'"
        )
    rows = _Rows(x.contiguous())
    start = [rows.of(state) for state in states]
    given = [rows.of_parameter(parameters[name]) for name in definition.prepared]
    kernel, values = _kernel(definition, given, options, surrogate, save_dtype, is_recurrent=True)
    return recurrent.run_fused(x, spikes, start, given, kernel, values, weight, bias, kind, keep, backend)
