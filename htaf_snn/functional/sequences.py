"""Neurons over sequences."""

from __future__ import annotations

import inspect
import math
import sys
import textwrap
from collections import namedtuple
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .._checks import check_floating, check_number, check_real, describe
from ..kernels import _dispatch
from ..kernels.neuron import fused
from ..kernels.neuron import recurrent as neuron_recurrent
from ..kernels.neuron import reference as neuron_reference
from ..neurons import NEURONS, Neuron
from ..neurons.words import described
from ..surrogate import Surrogate, SurrogateLike, resolve
from ..surrogate.elementwise import is_transformed

State = Tensor | tuple[Tensor, ...]
Recurrent = nn.Linear | nn.Conv2d | Tensor | tuple[Tensor, Tensor | None]


def _resolved(surrogate: SurrogateLike, x: Tensor) -> Surrogate:
    """Return the surrogate; raise ValueError unless its parameters fit the neurons of x."""
    resolved = resolve(surrogate)
    for name, value in resolved.values().items():
        if isinstance(value, Tensor):
            _check_over_neurons(name, value, x)
    return resolved


def _check_sequence(x) -> torch.dtype:
    """Check inputs and return the dtype of the state: float64 for float64, else float32."""
    check_floating("x", x)
    if torch.jit.is_tracing():
        raise ValueError("x: expected no torch.jit.trace, which loses gradients of fused neurons; use torch.export")
    if x.ndim < 3:
        remedy = "a single time step is x[None], a single neuron per sample is x[..., None]"
        raise ValueError(f"x: expected currents of shape (T, B, features, ...), got {describe(x)}; {remedy}")
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _backend(backend: str, x: Tensor, dtype: torch.dtype, surrogate: Surrogate | None) -> str:
    """Return the backend for these inputs; "auto" is torch where only plain operations give every derivative.

    Kernels have a gradient, but no forward-mode or vmapped derivative, and an exported graph keeps the gradients of
    operators and plain operations alone.
    """
    chosen = _dispatch.choose(backend, x.device, dtype)
    in_kernel = surrogate is None or fused.is_in_kernel(surrogate)
    if torch.compiler.is_exporting() and surrogate and surrogate.formula is None and torch.is_grad_enabled():
        raise ValueError(
            "surrogate: expected one of htaf_snn, such as 'atan', to export a trainable network; the exported graph "
            f"would lose the gradient of {surrogate!r}; for inference, export under torch.no_grad()"
        )
    plain = is_transformed() or (torch.compiler.is_exporting() and not in_kernel)
    if not plain or chosen == "torch":
        return chosen
    if backend == "auto":
        return "torch"
    place = "torch.func, forward-mode differentiation and torch.export"
    raise ValueError(f"backend: expected auto or torch inside {place}, got {backend!r}")


def _uncompiled(run: Callable) -> Callable:
    """Leave this part to the interpreter: the compiler would lose the gradient of a callable beside a kernel."""
    torch._dynamo.graph_break(
        msg="surrogate: expected one of htaf_snn, such as 'atan', or backend='torch' to compile a fused neuron as one "
        "graph, got another callable"
    )
    return torch.compiler.disable(run)


def _over_neurons(
    name: str,
    value: float | Tensor,
    x: Tensor,
    dtype: torch.dtype,
    lowest: float = -math.inf,
    highest: float = math.inf,
) -> Tensor:
    """Return a parameter as a tensor of the state's dtype that broadcasts to (B, *features), clamped into a range.

    It is not expanded: a number would take four saved bytes per neuron.
    """
    if not isinstance(value, Tensor):
        check_number(name, value)
        # A fill, as a copy to a GPU would wait for it and cannot be captured in a graph.
        return torch.full((), min(max(value, lowest), highest), dtype=dtype, device=x.device)
    check_real(name, value)
    if value.device != x.device and value.ndim:
        raise ValueError(f"{name}: expected a tensor on {x.device}, as x is, got one on {value.device}")
    _check_over_neurons(name, value, x)
    value = value.to(x.device, dtype)
    if value.device.type == "cpu" and not (torch.compiler.is_compiling() or is_transformed()):
        if value.detach().isnan().any():
            raise ValueError(f"{name}: expected numbers, got NaN in {describe(value)}")
    return value if lowest == -math.inf else value.clamp(lowest, highest)


def _check_over_neurons(name: str, value: Tensor, x: Tensor) -> None:
    """Raise ValueError unless a tensor broadcasts to one time step (B, *features) of the inputs."""
    if not value.ndim:
        return
    try:
        value.expand(x.shape[1:])
    except RuntimeError:
        expected = f"a shape that broadcasts to {tuple(x.shape[1:])}"
        raise ValueError(f"{name}: expected {expected}, got {describe(value)}") from None


@dataclass(frozen=True)
class _Given:
    """The checked arguments of a run: those that the update takes, and how to compute it."""

    dtype: torch.dtype
    parameters: dict[str, Tensor]
    update: tuple[dict[str, Tensor], dict[str, Any]]
    surrogate: Surrogate | None
    backend: str


def _checked(
    neuron: Neuron,
    x: Tensor,
    surrogate: SurrogateLike,
    save_dtype: torch.dtype | None,
    checkpoint_every: int | None,
    backend: str,
    arguments: Mapping[str, Any],
) -> _Given:
    dtype = _check_sequence(x)
    if not neuron.spikes and surrogate != "htaf":
        raise TypeError(f"{neuron.name}: expected no surrogate, as it does not spike")
    resolved = _resolved(surrogate, x) if neuron.spikes else None
    check_saving(save_dtype, checkpoint_every)
    given, options = check_arguments(neuron, arguments), check_options(neuron, arguments)
    if "dt" in given:
        check_time_step(given["dt"])
    parameters = {
        name: _over_neurons(name, value, x, dtype, *neuron.clamped.get(name, ())) for name, value in given.items()
    }
    check_greater(neuron, parameters)
    prepared = neuron.prepare(**parameters) if neuron.prepare else parameters
    return _Given(dtype, parameters, (prepared, options), resolved, _backend(backend, x, dtype, resolved))


def _start(neuron: Neuron, names: Collection[str], state: State | None, x: Tensor, given: _Given) -> list[Tensor]:
    """Return the states before the first time step, each (B, *features); at rest if none is given."""
    if state is None:
        rest = [neuron.states.get(name, 0.0) for name in names]
        values = [
            given.parameters[value] if isinstance(value, str)
            else torch.full((), value, dtype=given.dtype, device=x.device)
            for value in rest
        ]  # fmt: skip
        return [(value if neuron.learns_at_rest else value.detach()).expand(x.shape[1:]) for value in values]
    found = (state,) if isinstance(state, Tensor) else tuple(state)
    if len(found) != len(names):
        raise ValueError(f"state: expected ({', '.join(names)}), got {len(found)} tensors")
    for name, value in zip(names, found, strict=True):
        if not isinstance(value, Tensor) or value.shape != x.shape[1:] or value.device != x.device:
            expected = (
                f"a tensor of shape {tuple(x.shape[1:])} on {x.device}, one entry per neuron of x without its time"
            )
            raise ValueError(f"state: expected {name} to be {expected}, got {describe(value)}")
        check_floating(name, value)
    return [value.to(given.dtype) for value in found]


def check_saving(save_dtype: torch.dtype | None, checkpoint_every: int | None) -> None:
    """Raise ValueError unless potentials can be kept in that dtype, every so many time steps."""
    if save_dtype not in (None, torch.bfloat16):
        raise ValueError(f"save_dtype: expected None or bfloat16, got {save_dtype!r}")
    if checkpoint_every is not None and (not isinstance(checkpoint_every, int) or checkpoint_every < 1):
        raise ValueError(f"checkpoint_every: expected a number of steps, at least 1, got {checkpoint_every!r}")


def check_time_step(dt: object) -> None:
    """Raise ValueError unless a time step is positive and finite."""
    if not isinstance(dt, Tensor):
        check_number("dt", dt)
        if not 0 < dt < math.inf:  # type: ignore[operator]
            raise ValueError(f"dt: expected a positive number of seconds, got {dt!r}")


def _in_pieces(x: Tensor, steps: int, run: Callable, states: list[Tensor]) -> tuple[Tensor, ...]:
    """Run over `steps` time steps at a time, keeping the states between the pieces alone."""
    if is_transformed():
        place = "torch.func and forward-mode differentiation"
        raise ValueError(f"checkpoint_every: expected None inside {place}, got {steps}")
    pieces = []
    for piece in x.split(steps):
        output, *states = checkpoint(run, piece, *states, use_reentrant=False, preserve_rng_state=False)
        pieces.append(output)
    return torch.cat(pieces), *states


_STATES: dict[tuple[str, bool], type] = {}


def make_state_type(neuron: Neuron, is_recurrent: bool = False) -> type:
    """Make the named tuple of a neuron's states, such as `LIFState`; a recurrent one's begins with its output z."""
    title = f"{neuron.title}{'Recurrent' if is_recurrent and not neuron.title.startswith('R') else ''}State"
    names = (*(["z"] if is_recurrent else []), *neuron.states)
    made: Any = getattr(sys.modules[__name__], title, None)
    if made is not None and made._fields == names:  # of a neuron that is defined again
        _STATES[neuron.key, is_recurrent] = made
        return made
    made = namedtuple(title, names)  # type: ignore[misc, no-redef]
    made.__doc__ = f"The states {', '.join(made._fields)} of a layer, each (B, *features)."
    made.__module__ = __name__
    setattr(sys.modules[__name__], title, made)  # where pickle looks for it
    _STATES[neuron.key, is_recurrent] = made
    return made


for _neuron in NEURONS.values():
    make_state_type(_neuron)
    make_state_type(_neuron, is_recurrent=True)


def _packed(neuron: Neuron, states: Sequence[Tensor], is_recurrent: bool = False) -> State:
    return states[0] if len(states) == 1 else _STATES[neuron.key, is_recurrent](*states)


def check_options(neuron: Neuron, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a value for each of a neuron's options; raise ValueError for one that it cannot have."""
    chosen = {name: options.get(name, values[0]) for name, values in neuron.options.items()}
    for name, value in chosen.items():
        if not any(value is choice or (isinstance(choice, str) and value == choice) for choice in neuron.options[name]):
            expected = ", ".join(map(str, neuron.options[name]))
            raise ValueError(f"{name}: expected one of {expected}, got {value!r}")
    return chosen


def check_greater(neuron: Neuron, parameters: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless parameters are greater than those that they have to be greater than.

    They are not read where that would stall a device or break a graph.
    """
    for name, other in neuron.greater.items():
        given = parameters[name], parameters[other]
        if torch.compiler.is_compiling() or is_transformed() or any(tensor.device.type != "cpu" for tensor in given):
            continue
        if not bool((given[0] > given[1]).all()):
            least = (given[0] - given[1]).min().item()
            raise ValueError(
                f"{name}: expected to be greater than {other}, got a difference of {least:.3g}; while both are "
                "learned, a smaller learning rate or a clamp after each step keeps them apart"
            )


def check_arguments(neuron: Neuron, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a value for each of a neuron's parameters; raise TypeError for unknown and missing ones."""
    for name in given:
        if name not in neuron.parameters and name not in neuron.options:
            known = ", ".join((*neuron.parameters, *neuron.options))
            raise TypeError(f"{neuron.name}: expected {known}, got an unexpected argument {name!r}")
    values = {name: given.get(name, default) for name, default in neuron.parameters.items()}
    missing = [name for name, value in values.items() if value is None]
    if missing:
        raise TypeError(f"{neuron.name}: expected a value for {', '.join(missing)}")
    return values


def run(
    neuron: Neuron,
    x: Tensor,
    *,
    surrogate: SurrogateLike = "htaf",
    state: State | None = None,
    return_states: bool = False,
    save_dtype: torch.dtype | None = None,
    checkpoint_every: int | None = None,
    backend: str = "auto",
    **arguments: Any,
) -> tuple:
    """Run neurons over a whole sequence.

    Args:
        neuron: of `htaf_snn.neurons`.
        x: inputs (T, B, *features), features of at least one dimension, float16, bfloat16, float32 or float64. The
            state is float64 for float64 and else float32.
        surrogate: in any form, see `surrogate.resolve`, at any hardness; resets are hard. A callable's spikes also
            reset the neuron. `torch.compile` does not compile a callable, and one that fires at the threshold itself,
            as SpikingJelly's do, is stepped in torch where that makes a difference.
        state: the states before the first time step, each (B, *features); at rest by default.
        return_states: also return the states after each time step.
        save_dtype: dtype in which values are kept for the backward pass, bfloat16; None is the state's. Gradients are
            then those of the rounded values; spikes do not change.
        checkpoint_every: keep the states only every so many time steps, and recompute all else in the backward pass.
            The input is kept in any case.
        backend: "auto", or "torch", "numba" (CPU), "triton" (GPU), see `backends`. "auto" is "torch" inside
            `torch.func` and for forward-mode derivatives.
        **arguments: the neuron's parameters, numbers or tensors that broadcast to (B, *features), and its options.

    Returns:
        (output, state) or (output, state, states): the output (T, B, *features) in the dtype of x, for spikes exactly
        0 and 1 at hardness 1; the last state, a tensor (B, *features) in the state's dtype or a named tuple of several;
        the states after each time step likewise, each (T, B, *features). Gradients exist for x, the parameters, the
        first state and the surrogate's own parameters; second derivatives only with backend "torch".

    Raises:
        TypeError: if x or a tensor is not floating-point, an argument is unknown or missing, or the surrogate has no
            known form.
        ValueError: if a shape, device, name or number does not fit, or no kernel can be made of the neuron.
        RuntimeError: if the backend is not available.

    Example:
        >>> from htaf_snn.neurons import NEURONS
        >>> spikes, v = run(NEURONS["leaky"], torch.full((4, 1, 1), 0.6), beta=0.9)
        >>> spikes.flatten(), v.shape
        (tensor([0., 1., 0., 1.]), torch.Size([1, 1]))
    """
    given = _checked(neuron, x, surrogate, save_dtype, checkpoint_every, backend, arguments)
    start = _start(neuron, neuron.states, state, x, given)
    if checkpoint_every is not None and return_states:
        raise ValueError("checkpoint_every: expected None with return_states, which keeps all states")

    def once(x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        parameters, options = given.update
        if given.backend != "torch":
            try:
                return fused.run(
                    neuron, x, states, parameters, options, given.surrogate, return_states, save_dtype, given.backend
                )
            except fused.ResetsDifferError:
                if backend != "auto":
                    raise
        return neuron_reference.run(neuron, x, states, {**parameters, **options}, given.surrogate, return_states)

    if torch.compiler.is_compiling() and given.surrogate and given.surrogate.formula is None:
        once = _uncompiled(once) if given.backend != "torch" else once
    output, *states = once(x, *start) if checkpoint_every is None else _in_pieces(x, checkpoint_every, once, start)
    result = output, _packed(neuron, states[: len(start)])
    return (*result, _packed(neuron, states[len(start) :])) if return_states else result


def run_recurrent(
    neuron: Neuron,
    x: Tensor,
    recurrent: Recurrent,
    *,
    surrogate: SurrogateLike = "htaf",
    state: State | None = None,
    return_states: bool = False,
    save_dtype: torch.dtype | None = None,
    checkpoint_every: int | None = None,
    backend: str = "auto",
    **arguments: Any,
) -> tuple:
    """Run neurons whose output returns to them, one time step later, through weights.

    Args:
        neuron: as for `run`, one that spikes.
        x: as for `run`, (T, B, features), or (T, B, channels, height, width) for a convolution.
        recurrent: the weights: a linear layer or its (weight, bias), a convolution that keeps the shape (an odd kernel,
            padded by half of it, and nothing else changed), or a tensor that broadcasts to (B, *features), for neurons
            that feed themselves alone.
        surrogate: of htaf_snn, with numbers as parameters; others with backend "torch" only.
        state: z, the output of the time step before, and then as for `run`.
        return_states, save_dtype, checkpoint_every, backend, **arguments: as for `run`.

    Returns:
        As `run`, with z the first of the states. Gradients exist for the weights too.

    Raises:
        TypeError, ValueError, RuntimeError: as `run`; TypeError if `recurrent` has no known form, ValueError if it
            does not keep the shape.

    Example:
        >>> from htaf_snn.neurons import NEURONS
        >>> _ = torch.manual_seed(0)
        >>> spikes, state = run_recurrent(NEURONS["rleaky"], torch.ones(5, 2, 3), nn.Linear(3, 3), beta=0.9)
        >>> spikes.shape, state._fields
        (torch.Size([5, 2, 3]), ('z', 'v'))
    """
    if not neuron.spikes:
        raise ValueError(f"neuron: expected one that spikes, got {neuron.name}, which has nothing to send back")
    given = _checked(neuron, x, surrogate, save_dtype, checkpoint_every, backend, arguments)
    start = _start(neuron, ("z", *neuron.states), state, x, given)
    weight, bias, kind = _weights(recurrent, x, given.dtype)
    used = given.surrogate
    assert used is not None  # a neuron without spikes has nothing to send back
    if checkpoint_every is not None and return_states:
        raise ValueError("checkpoint_every: expected None with return_states, which keeps all states")

    def once(x: Tensor, spikes: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        parameters, options = given.update
        if given.backend == "torch":
            output, *rest = neuron_recurrent.run_reference(
                neuron, x, spikes, states, {**parameters, **options}, used, weight, bias, kind, return_states
            )
        else:
            output, *rest = fused.run_recurrent(
                neuron, x, spikes, states, parameters, options, used, weight, bias, kind, return_states, save_dtype,
                given.backend,
            )  # fmt: skip
        last = output[-1].to(spikes.dtype) if len(output) else spikes
        trajectory = [output.to(spikes.dtype)] if return_states else []
        return output, last, *rest[: len(states)], *trajectory, *rest[len(states) :]

    output, *states = once(x, *start) if checkpoint_every is None else _in_pieces(x, checkpoint_every, once, start)
    result = output, _packed(neuron, states[: len(start)], True)
    return (*result, _packed(neuron, states[len(start) :], True)) if return_states else result


def check_plain(recurrent: nn.Module) -> None:
    """Raise ValueError unless recurrent weights are all that a layer computes with."""
    is_plain = type(recurrent).forward in (nn.Linear.forward, nn.Conv2d.forward) and "forward" not in vars(recurrent)
    hooks = recurrent._forward_hooks or recurrent._forward_pre_hooks or recurrent._backward_hooks
    if not is_plain or hooks or getattr(recurrent, "padding_mode", "zeros") != "zeros":
        expected = "a plain Linear or Conv2d without hooks, parametrisation and other padding than zeros"
        raise ValueError(f"recurrent: expected {expected}, got {recurrent}")


def _weights(recurrent: object, x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor | None, str]:
    """Return the weight, the bias and the kind of recurrent weights, in the state's dtype."""
    if isinstance(recurrent, Tensor):
        return _over_neurons("recurrent", recurrent, x, dtype), None, "elementwise"
    if isinstance(recurrent, (nn.Linear, nn.Conv2d)):
        check_plain(recurrent)
        weight, bias = recurrent.weight, recurrent.bias
    elif isinstance(recurrent, tuple) and len(recurrent) == 2:
        weight, bias = recurrent
    else:
        raise TypeError(f"recurrent: expected a Linear, a Conv2d or a tensor, got {describe(recurrent)}")
    bias = None if bias is None else bias.to(dtype)
    if not isinstance(recurrent, nn.Conv2d):
        if x.ndim != 3 or weight.shape != (x.shape[-1], x.shape[-1]):
            expected = f"a weight of shape {(x.shape[-1], x.shape[-1])} for x of shape {tuple(x.shape)}"
            raise ValueError(f"recurrent: expected {expected}, got {describe(weight)}")
        return weight.to(dtype), bias, "linear"
    half = tuple(size // 2 for size in recurrent.kernel_size)
    changed = any(size % 2 == 0 for size in recurrent.kernel_size) or recurrent.padding != half
    changed |= recurrent.groups != 1 or any(n != 1 for n in (*recurrent.stride, *recurrent.dilation))
    if changed or x.ndim != 5 or not x.shape[2] == recurrent.in_channels == recurrent.out_channels:
        expected = f"a convolution that keeps the shape {tuple(x.shape[2:])}, padded by half of an odd kernel"
        raise ValueError(f"recurrent: expected {expected}, got {recurrent}")
    return weight.to(dtype), bias, "conv2d"


class OverTime(Protocol):
    """A function that runs one kind of neuron."""

    __name__: str

    def __call__(self, x: Tensor, **arguments: Any) -> tuple: ...


_SHARED = (
    """    surrogate, state, return_states, save_dtype, checkpoint_every, backend: as in `htaf_snn.functional.run`."""
)


def documented(neuron: Neuron, spelt: Mapping[str, str], shared: str, defaults: Mapping[str, Any] = {}) -> str:
    """Return the text of a neuron's file, and what its function or layer takes.

    Args:
        neuron: whose text it is.
        spelt: other names for its parameters and options.
        shared: lines on all else that is taken.
        defaults: of options, where they are others than the neuron's.
    """
    is_ours = neuron.key == neuron.name
    file = sys.modules[f"{Neuron.__module__.rpartition('.')[0]}.{neuron.name}"] if is_ours else neuron.update
    text = inspect.getdoc(file) or neuron.name
    at_rest = ", ".join(f"{name} = {value}" for name, value in neuron.states.items())
    lines = [textwrap.fill(f"{spelt.get(name, name)}: {words}", 116, initial_indent="    ", subsequent_indent=" " * 8)
             for name, words in described(neuron, defaults).items()]  # fmt: skip
    return "\n".join([text, "", f"At rest {at_rest}.", "", "Args:", *lines, shared])


def example(neuron: Neuron, call: str) -> str:
    """Return an example of a call that takes what the neuron requires."""
    required = {"alpha": 0.9, "C": 5.0}
    given = ", ".join(f"{name}={required.get(name, 0.8)}" for name, value in neuron.parameters.items() if value is None)
    return (
        f"\nExample:\n    >>> output, state = {call.format(given)}\n    >>> output.shape\n    torch.Size([5, 2, 3])\n"
    )


def over_time(neuron: Neuron) -> OverTime:
    """Return the function that runs a neuron over a sequence, `run` with the neuron's parameters by keyword."""

    def function(x: Tensor, **arguments: Any) -> tuple:
        return run(neuron, x, **arguments)

    function.__name__ = function.__qualname__ = neuron.name
    shared = _SHARED if neuron.spikes else _SHARED.replace("surrogate, ", "")
    inputs = "    x: inputs (T, B, *features), as in `htaf_snn.functional.run`, like what is returned and raised."
    text = documented(neuron, {}, f"{shared}\n{inputs}")
    function.__doc__ = f"{text}\n{example(neuron, f'{neuron.name}(torch.ones(5, 2, 3), {{}})').replace(', )', ')')}"
    function.__signature__ = _signature(neuron)  # type: ignore[attr-defined]
    return function


def _signature(neuron: Neuron) -> inspect.Signature:
    """Return what the function of a neuron takes, as editors show it."""
    kinds, none = inspect.Parameter, inspect.Parameter.empty
    shared = [p for p in inspect.signature(run).parameters.values() if p.kind is kinds.KEYWORD_ONLY]
    named = {
        name: (none if default is None else default, "float | Tensor") for name, default in neuron.parameters.items()
    }
    named |= {name: (values[0], type(values[0]).__name__) for name, values in neuron.options.items()}
    named |= {p.name: (p.default, p.annotation) for p in shared if p.name != "surrogate" or neuron.spikes}
    return inspect.Signature(
        [kinds("x", kinds.POSITIONAL_OR_KEYWORD, annotation="Tensor")]
        + [kinds(name, kinds.KEYWORD_ONLY, default=value, annotation=kind) for name, (value, kind) in named.items()],
        return_annotation="tuple",
    )
