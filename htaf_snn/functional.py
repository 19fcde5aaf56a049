"""Stateless functions: they check their arguments, then compute."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from . import formulas
from .formulas import Formula
from .kernels import _dispatch
from .kernels.binary_conv2d.windows import windows
from .kernels.binary_linear import autograd as bit_operators
from .kernels.binary_linear import reference as bit_reference
from .kernels.heaviside_linear.autograd import heaviside_product
from .kernels.lif import reference as lif_reference
from .kernels.lif.fused import Emission, fused_cuba, fused_leaky
from .kernels.spike import reference
from .kernels.spike.autograd import Step

__all__ = [
    "BinaryWeight",
    "binary_conv2d",
    "binary_linear",
    "cuba_lif",
    "heaviside_linear",
    "htaf",
    "htaf_derivative",
    "level_linear",
    "lif",
    "pack_bits",
    "pack_weight",
    "smooth",
    "spike",
    "unpack_bits",
]

RESETS = ("subtract", "zero", "none")


def _describe(value) -> str:
    if isinstance(value, Tensor):
        return f"a {value.dtype} tensor of shape {tuple(value.shape)}"
    return repr(value)


def _check_floating(name: str, x) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise TypeError(f"{name}: expected a floating-point tensor, got {_describe(x)}")


def _check_tensor_parameter(name: str, value: Tensor, x: Tensor, formula: Formula) -> None:
    _check_floating(name, value)
    try:
        fits = torch.broadcast_shapes(value.shape, x.shape) == x.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(f"{name}: expected a shape that broadcasts to {tuple(x.shape)}, got {_describe(value)}")
    if value.requires_grad and formula.parameter_gradients is None:
        raise ValueError(f"{name}: the parameters of {formula.name!r} have no gradient; expected a detached tensor")
    check_positive(name, value, formula)


def check_positive(name: str, value: Tensor, formula: Formula) -> None:
    """Raise ValueError unless all of a parameter tensor is positive and, where the formula wants it, finite.

    On an accelerator and under compilation or vmap the values are not looked at: it would stall the device,
    break the graph, or is impossible.
    """
    if value.device.type != "cpu" or torch.compiler.is_compiling():
        return
    value = value.detach()
    try:
        valid = bool(((value > 0) & (value.isfinite() | formula.may_be_infinite(name))).all())
    except RuntimeError:
        return
    if not valid:
        raise ValueError(f"{name}: expected positive finite values, got {value.flatten()[:8].tolist()}")


def _check(x: Tensor, formula: Formula, parameters: dict) -> tuple:
    _check_floating("x", x)
    formula.check({k: v for k, v in parameters.items() if not isinstance(v, Tensor)})
    for name, value in parameters.items():
        if isinstance(value, Tensor):
            _check_tensor_parameter(name, value, x, formula)
    return tuple(parameters.values())


def _htaf_formula(normalized: bool) -> Formula:
    return formulas.get("htaf_normalized" if normalized else "htaf")


def _resolve(surrogate) -> tuple[Formula, dict]:
    if isinstance(surrogate, str):
        name, values = formulas.parse_spec(surrogate)
        formula = _htaf_formula(values.pop("normalized", False)) if name == "htaf" else formulas.get(name)
        return formula, {**formula.defaults, **values}
    if isinstance(surrogate, Formula):
        return surrogate, surrogate.defaults
    if isinstance(getattr(surrogate, "formula", None), Formula):
        return surrogate.formula, surrogate.values()
    raise TypeError(f"surrogate: expected a specification, a Formula or a surrogate module, got {surrogate!r}")


def htaf(x: Tensor, alpha: float | Tensor = 1.0, beta: float | Tensor = 4.0, normalized: bool = False) -> Tensor:
    """Smooth heavy-tailed step, sigma(beta * tanh(alpha * x)).

    Args:
        x: floating-point tensor of any shape.
        alpha: steepness, > 0; a number, or a tensor that broadcasts to x and may require a gradient.
        beta: saturation, > 0; likewise.
        normalized: stretch the step so that it reaches 0 and 1.

    Returns:
        Tensor of the shape and dtype of x, from sigma(-beta) to sigma(beta), or from 0 to 1 if normalized.
        Its gradients are exact: with respect to x `htaf_derivative`, and with respect to alpha and beta.

    Raises:
        TypeError: if x or a tensor parameter is not floating-point.
        ValueError: if alpha or beta is not positive and finite, or does not broadcast to x.

    Formula: DESIGN of this project, our reading of Park et al. 2026, arXiv 2605.11558.

    Example:
        >>> htaf(torch.tensor([-10.0, 0.0, 10.0]))
        tensor([0.0180, 0.5000, 0.9820])
    """
    return smooth(x, _htaf_formula(normalized), alpha=alpha, beta=beta)


def htaf_derivative(
    x: Tensor, alpha: float | Tensor = 1.0, beta: float | Tensor = 4.0, normalized: bool = False
) -> Tensor:
    """Derivative of `htaf` with respect to x, the surrogate gradient of spike mode.

    Args:
        x: floating-point tensor of any shape.
        alpha: steepness, > 0; a number or a tensor that broadcasts to x.
        beta: saturation, > 0; likewise.
        normalized: as in `htaf`.

    Returns:
        Tensor of the shape and dtype of x, with values from 0 to alpha * beta / 4 (more if normalized); NaN where
        x is NaN.

    Raises:
        TypeError, ValueError: as `htaf`.

    Example:
        >>> htaf_derivative(torch.tensor([0.0, 1e30]))
        tensor([1., 0.])
    """
    formula = _htaf_formula(normalized)
    return reference.derivative(x, formula, _check(x, formula, {"alpha": alpha, "beta": beta})).to(x.dtype)


def spike(x: Tensor, surrogate="htaf", **parameters: float | Tensor) -> Tensor:
    """The strict step, 1 where x > 0 and else 0, with a surrogate gradient.

    Args:
        x: floating-point tensor of any shape; usually membrane potential minus threshold.
        surrogate: a `formulas.Formula`, a module of `htaf_snn.surrogate` (whose mode is ignored: the forward pass is
            the step), or a specification such as "htaf(beta=8)", which is parsed in every call and cannot be
            compiled.
        **parameters: values that replace those of the surrogate; numbers, or tensors that broadcast to x. Those of
            HTAF may require a gradient and receive that of the smooth step.

    Returns:
        Tensor of exact zeros and ones, of the shape and dtype of x. The backward pass multiplies by the
        surrogate's derivative, NaN where x is NaN.

    Raises:
        TypeError: if x is not a floating-point tensor or surrogate is of none of the three kinds.
        ValueError: if the surrogate or a parameter is unknown, or a value is not positive and finite.

    Example:
        >>> x = torch.tensor([-0.5, 0.0, 0.5], requires_grad=True)
        >>> spike(x, "atan(alpha=2)").sum().backward()
        >>> x.grad
        tensor([0.2884, 1.0000, 0.2884])
    """
    formula, values = _resolve(surrogate)
    return Step.apply(x, formula, False, *_check(x, formula, {**values, **parameters}))


def smooth(x: Tensor, surrogate="htaf", **parameters: float | Tensor) -> Tensor:
    """The surrogate's smooth step, its primitive, with exact gradients.

    Args, Raises: as `spike`.

    Returns:
        Tensor of the shape and dtype of x, NaN where x is NaN.

    Example:
        >>> smooth(torch.tensor([-1.0, 0.0, 1.0]), "sigmoid(slope=4)")
        tensor([0.0180, 0.5000, 0.9820])
    """
    formula, values = _resolve(surrogate)
    return Step.apply(x, formula, True, *_check(x, formula, {**values, **parameters}))


def _emission(surrogate) -> Emission:
    if callable(surrogate) and not isinstance(getattr(surrogate, "formula", None), Formula):
        return Emission(call=surrogate)
    formula, values = _resolve(surrogate)
    formula.check({k: v for k, v in values.items() if not isinstance(v, Tensor)})
    return Emission(formula, tuple(values.values()), getattr(surrogate, "mode", "spike") == "smooth")


def _check_sequence(x) -> torch.dtype:
    """Check currents and give the dtype of the state: float64 for float64, else float32."""
    _check_floating("x", x)
    if x.ndim < 2:
        raise ValueError(f"x: expected currents of shape (T, B, *features), got {_describe(x)}; is time missing?")
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _over_neurons(
    name: str,
    value: float | Tensor,
    x: Tensor,
    dtype: torch.dtype,
    lowest: float = -math.inf,
    highest: float = math.inf,
) -> Tensor:
    """A parameter as a tensor of the state's dtype that broadcasts to (B, *features), clamped into a range.

    It is left as small as it came: expanded, a number would take four bytes of what is saved for each neuron.
    """
    shape = x.shape[1:]
    if not isinstance(value, Tensor):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
            raise ValueError(f"{name}: expected a number or a floating-point tensor, got {value!r}")
        return torch.tensor(min(max(value, lowest), highest), dtype=dtype, device=x.device)
    _check_floating(name, value)
    if value.device != x.device and value.ndim:
        raise ValueError(f"{name}: expected a tensor on {x.device}, as x is, got one on {value.device}")
    try:
        value = value.to(x.device, dtype)
        value.expand(shape)
        return value if lowest == -math.inf else value.clamp(lowest, highest)
    except RuntimeError:
        raise ValueError(
            f"{name}: expected a shape that broadcasts to {tuple(shape)}, got {_describe(value)}"
        ) from None


def _state(name: str, value: Tensor | None, x: Tensor, dtype: torch.dtype, rest: Tensor | None = None) -> Tensor:
    if value is None:
        rest = torch.zeros((), dtype=dtype, device=x.device) if rest is None else rest
        return rest.expand(x.shape[1:])
    if not isinstance(value, Tensor) or value.shape != x.shape[1:] or value.device != x.device:
        expected = f"a tensor of shape {tuple(x.shape[1:])} on {x.device}"
        raise ValueError(f"{name}: expected {expected}, got {_describe(value)}")
    _check_floating(name, value)
    return value.to(dtype)


def _check_saving(save_dtype: torch.dtype | None, checkpoint_every: int | None) -> None:
    if save_dtype not in (None, torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(f"save_dtype: expected None, float32, bfloat16 or float16, got {save_dtype!r}")
    if checkpoint_every is not None and (not isinstance(checkpoint_every, int) or checkpoint_every < 1):
        raise ValueError(f"checkpoint_every: expected a number of steps, at least 1, got {checkpoint_every!r}")


def _in_pieces(x: Tensor, steps: int, run: Callable, *state: Tensor) -> tuple[Tensor, ...]:
    """Run over `steps` time steps at a time, keeping the states between the pieces and no trace."""
    pieces = []
    for piece in x.split(steps):
        outputs, *state = checkpoint(run, piece, *state, use_reentrant=False, preserve_rng_state=False)
        pieces.append(outputs)
    return torch.cat(pieces), *state


def lif(
    x: Tensor,
    *,
    beta: float | Tensor,
    threshold: float | Tensor = 1.0,
    surrogate="htaf",
    reset: str = "subtract",
    reset_delay: bool = True,
    v0: Tensor | None = None,
    return_trace: bool = False,
    save_dtype: torch.dtype | None = None,
    checkpoint_every: int | None = None,
    backend: str = "auto",
) -> tuple[Tensor, ...]:
    """Leaky integrate-and-fire neurons over a whole sequence, equal to stepping snnTorch's `Leaky`.

    u[t] = beta * u[t-1] + x[t] - r[t] * threshold, with spikes s[t] = u[t] > threshold and the reset
    r[t] = u[t-1] > threshold, through which no gradient flows. With reset "zero" the reset potential is
    (1 - r[t]) * u[t-1] before the decay. Without `reset_delay` a spike resets in its own step, and the gradient flows
    through that, as in snnTorch.

    Args:
        x: input currents (T, B, *features); float16, bfloat16, float32 or float64. The state is float64 for float64
            and else float32.
        beta: decay of the potential a step, a number or a tensor that broadcasts to (B, *features); values outside
            [0, 1] are clamped into it, as snnTorch does.
        threshold: likewise, not clamped.
        surrogate: a specification, formula or module as for `spike`, in either mode (resets stay hard), or any
            elementwise callable from potential minus threshold to spikes.
        reset: "subtract", "zero" or "none".
        reset_delay: whether a spike resets in the next step (True) or in its own.
        v0: initial potential (B, *features); zero by default.
        return_trace: also return the potential after each step.
        save_dtype: dtype in which the potentials are kept for the backward pass, such as bfloat16; None is the
            state's. Gradients are then those of the rounded potentials; spikes do not change.
        checkpoint_every: keep the potentials of every so many steps only and recompute the others in the backward
            pass. The input is kept in any case.
        backend: "auto", or "torch", "numba" (CPU), "triton" (GPU), see `backends`.

    Returns:
        (spikes, v) or (spikes, v, trace): spikes (T, B, *features) in the dtype of x, exactly 0 and 1 but for smooth
        surrogates; the last potential (B, *features) and the trace (T, B, *features) in the state's dtype. Gradients
        exist for x, beta, threshold, v0 and the surrogate's own parameters; not twice.

    Raises:
        TypeError: if x or a parameter is not floating-point.
        ValueError: if a shape, device, name or number does not fit.
        RuntimeError: if the backend is not available.

    Example:
        >>> spikes, v = lif(torch.full((4, 1, 1), 0.6), beta=0.9)
        >>> spikes.flatten(), v.shape
        (tensor([0., 1., 0., 1.]), torch.Size([1, 1]))
    """
    dtype = _check_sequence(x)
    emission = _emission(surrogate)
    if reset not in RESETS:
        raise ValueError(f"reset: expected one of {', '.join(RESETS)}, got {reset!r}")
    _check_saving(save_dtype, checkpoint_every)
    beta = _over_neurons("beta", beta, x, dtype, lowest=0.0, highest=1.0)
    threshold = _over_neurons("threshold", threshold, x, dtype)
    v0 = _state("v0", v0, x, dtype)
    chosen = _dispatch.choose(backend, x.device, dtype)

    def run(x: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        if chosen == "torch":
            spikes, v, trace = lif_reference.leaky(
                x.to(dtype), beta, threshold, v, emission.spikes, emission.hard, reset, reset_delay
            )
            return spikes.to(x.dtype), v, trace
        spikes, trace, v = fused_leaky(
            x, beta.expand(v.shape).flatten(), threshold.expand(v.shape).flatten(), v.flatten(), emission, reset,
            reset_delay, return_trace, save_dtype or dtype, chosen,
        )  # fmt: skip
        return spikes, v.view(x.shape[1:]), trace

    if checkpoint_every is None:
        spikes, v, trace = run(x, v0)
    elif return_trace:
        raise ValueError("checkpoint_every: expected None with return_trace, which keeps every potential")
    else:
        spikes, v = _in_pieces(x, checkpoint_every, lambda *given: run(*given)[:2], v0)
    return (spikes, v, trace) if return_trace else (spikes, v)


def cuba_lif(
    x: Tensor,
    *,
    tau_syn_inv: float | Tensor = 200.0,
    tau_mem_inv: float | Tensor = 100.0,
    v_leak: float | Tensor = 0.0,
    threshold: float | Tensor = 1.0,
    v_reset: float | Tensor = 0.0,
    dt: float = 0.001,
    surrogate="htaf",
    detach_reset: bool = False,
    v0: Tensor | None = None,
    i0: Tensor | None = None,
    save_dtype: torch.dtype | None = None,
    checkpoint_every: int | None = None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor, Tensor]:
    """Current-based leaky integrate-and-fire neurons over a whole sequence, equal to Norse's `LIF`.

    In each step i += x, v += dt * tau_mem_inv * (v_leak - v + i), i -= dt * tau_syn_inv * i, a spike where
    v > threshold, and v = v_reset where there is one.

    Args:
        x: input currents (T, B, *features), as for `lif`.
        tau_syn_inv: inverse time constant of the current in 1/s, a number or a tensor that broadcasts to
            (B, *features).
        tau_mem_inv: that of the potential, likewise.
        v_leak, threshold, v_reset: potentials, likewise.
        dt: time step in s.
        surrogate: as for `lif`.
        detach_reset: let no gradient through the reset, as Norse's recurrent neurons do; its feed-forward ones let
            it through.
        v0: initial potential (B, *features); v_leak by default.
        i0: initial current (B, *features); zero by default.
        save_dtype, checkpoint_every, backend: as for `lif`.

    Returns:
        (spikes, v, i): spikes (T, B, *features) in the dtype of x; last potential and current (B, *features) in the
        state's dtype. Gradients exist for x, all parameters and both initial states; not twice. Those of the time
        constants need the input, which is then kept too.

    Raises:
        TypeError, ValueError, RuntimeError: as `lif`.

    Example:
        >>> spikes, v, i = cuba_lif(torch.full((6, 1, 1), 1.0))
        >>> spikes.flatten()
        tensor([0., 0., 0., 0., 0., 1.])
    """
    dtype = _check_sequence(x)
    emission = _emission(surrogate)
    _check_saving(save_dtype, checkpoint_every)
    threshold = _over_neurons("threshold", threshold, x, dtype)
    leak = _over_neurons("v_leak", v_leak, x, dtype)
    v_reset = _over_neurons("v_reset", v_reset, x, dtype)
    decay_mem = dt * _over_neurons("tau_mem_inv", tau_mem_inv, x, dtype)
    decay_syn = -dt * _over_neurons("tau_syn_inv", tau_syn_inv, x, dtype)
    v0 = _state("v0", v0, x, dtype, rest=leak.detach())
    i0 = _state("i0", i0, x, dtype)
    chosen = _dispatch.choose(backend, x.device, dtype)
    parameters = (decay_mem, decay_syn, leak, threshold, v_reset)

    def run(x: Tensor, v: Tensor, i: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if chosen == "torch":
            spikes, v, i, _ = lif_reference.cuba(
                x.to(dtype), *parameters, v, i, emission.spikes, emission.hard, detach_reset
            )
            return spikes.to(x.dtype), v, i
        # Stacked while small, and with all the dimensions of v, for its own to be expanded.
        stacked = torch.stack(torch.broadcast_tensors(*parameters, v.new_empty((1,) * v.ndim))[:-1])
        spikes, v, i = fused_cuba(
            x, stacked.expand(-1, *v.shape).flatten(1), v.flatten(), i.flatten(), emission, detach_reset,
            save_dtype or dtype, chosen,
        )  # fmt: skip
        return spikes, v.view(x.shape[1:]), i.view(x.shape[1:])

    if checkpoint_every is None:
        return run(x, v0, i0)
    return _in_pieces(x, checkpoint_every, run, v0, i0)


class BinaryWeight(NamedTuple):
    """Binary weights as the kernels take them, from `pack_weight`.

    Attributes:
        words: int64 of shape (K, 64 * ceil(O / 64)), K words for each of O outputs, turned over.
        ones: int32 of shape (O,), how many weights of each output are +1.
        tap_sums: int32 of shape (taps, O), the sum of the weights at each place of a window; one tap if linear.
        size: weights of each output.
        window: the places of a convolution's window, (kH, kW); None if linear.
    """

    words: Tensor
    ones: Tensor
    tap_sums: Tensor
    size: int
    window: tuple[int, int] | None


def pack_bits(x: Tensor, backend: str = "auto") -> Tensor:
    """Pack where x is greater than 0 into 64-bit words along the last dimension.

    Args:
        x: floating-point or integer tensor of shape (…, n).
        backend: "auto", "torch", "numba" or "triton".

    Returns:
        int64 words of shape (…, ceil(n / 64)); bit k of word j is element 64 j + k, and bits beyond n are 0.

    Raises:
        TypeError: if x is not a tensor of numbers.
        ValueError: if it has no dimension.

    Example:
        >>> pack_bits(torch.tensor([1.0, -1.0, 0.0, 2.0]))
        tensor([9])
    """
    if not isinstance(x, Tensor) or x.is_complex():
        raise TypeError(f"x: expected a tensor of numbers, got {_describe(x)}")
    if not x.ndim:
        raise ValueError(f"x: expected at least one dimension, got {_describe(x)}")
    return bit_operators.pack_bits(x, _dispatch.choose(backend, x.device, torch.float32))


def unpack_bits(words: Tensor, size: int) -> Tensor:
    """The first `size` bits of words (…, K) as a boolean tensor (…, size); the inverse of `pack_bits`.

    Raises:
        TypeError: if words are not int64.
        ValueError: if they hold fewer bits.

    Example:
        >>> unpack_bits(torch.tensor([9]), 4)
        tensor([ True, False, False,  True])
    """
    _check_words("words", words)
    if not 0 <= size <= 64 * words.shape[-1]:
        raise ValueError(f"size: expected 0 to {64 * words.shape[-1]}, the bits in words, got {size}")
    return bit_reference.unpack(words, size).bool()


def pack_weight(weight: Tensor) -> BinaryWeight:
    """Binary weights, +1 where `weight` is greater than 0 and else -1, as the kernels take them.

    Args:
        weight: of shape (O, n), or (O, C, kH, kW) for a convolution.

    Raises:
        TypeError: if it is no floating-point tensor.
        ValueError: if it is of another shape or has a NaN.

    Example:
        >>> pack_weight(torch.tensor([[1.0, -1.0, 0.0]])).ones
        tensor([1], dtype=torch.int32)
    """
    _check_floating("weight", weight)
    if weight.ndim not in (2, 4):
        raise ValueError(f"weight: expected the shape (O, n) or (O, C, kH, kW), got {_describe(weight)}")
    if weight.isnan().any():
        raise ValueError("weight: expected numbers, got NaN")
    window = tuple(weight.shape[2:])
    taps = weight.detach().reshape(*weight.shape[:2], math.prod(window)).movedim(1, -1)  # (O, taps, n)
    words = bit_operators.transposed(bit_reference.pack(taps).flatten(1))
    ones = (taps > 0).sum((1, 2), dtype=torch.int32)
    sums = torch.where(taps > 0, 1, -1).sum(2, dtype=torch.int32).T.contiguous()
    return BinaryWeight(words, ones, sums, taps[0].numel(), window or None)


def _check_words(name: str, words: Tensor) -> None:
    if not isinstance(words, Tensor) or words.dtype != torch.int64 or not words.ndim:
        raise TypeError(f"{name}: expected int64 words of `pack_bits`, got {_describe(words)}")


def _check_bits(words: Tensor, weight: BinaryWeight, levels: tuple[int, int], thresholds: Tensor | None) -> None:
    _check_words("words", words)
    taps = len(weight.tap_sums)
    if words.shape[-1] * taps != len(weight.words):
        raise ValueError(f"words: expected {len(weight.words) // taps} a row, for the weight, got {_describe(words)}")
    if tuple(levels) not in ((-1, 1), (0, 1)):
        raise ValueError(f"levels: expected (-1, 1) or (0, 1), got {levels!r}")
    if thresholds is not None and (thresholds.dtype != torch.int32 or thresholds.shape != weight.ones.shape):
        raise ValueError(f"thresholds: expected int32 of shape {tuple(weight.ones.shape)}, got {_describe(thresholds)}")


def binary_linear(
    words: Tensor,
    weight: BinaryWeight,
    *,
    levels: tuple[int, int] = (-1, 1),
    thresholds: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Products of packed bits with binary weights, by counting the bits that differ.

    Args:
        words: int64 of shape (…, ceil(n / 64)), from `pack_bits`.
        weight: from `pack_weight`.
        levels: what the bits mean, (-1, 1) or (0, 1).
        thresholds: int32 of shape (O,), or None.
        backend: "auto", "torch", "numba" or "triton".

    Returns:
        The sums, int32 (…, O); with thresholds where they are greater, as words (…, ceil(O / 64)).

    Raises:
        TypeError, ValueError: if an argument is of another type or shape.

    Example:
        >>> x, w = torch.tensor([[1.0, -1.0, 1.0]]), torch.tensor([[1.0, 1.0, 1.0], [-1.0, 1.0, 1.0]])
        >>> binary_linear(pack_bits(x), pack_weight(w))
        tensor([[ 1, -1]], dtype=torch.int32)
        >>> binary_linear(pack_bits(x), pack_weight(w), levels=(0, 1))
        tensor([[2, 0]], dtype=torch.int32)
    """
    _check_bits(words, weight, levels, thresholds)
    if weight.window is not None:
        raise ValueError("weight: expected that of a linear layer, got that of a convolution")
    backend = _dispatch.choose(backend, words.device, torch.float32)
    # Sum = size - 2 * differing between -1 and 1; between 0 and 1, (weights +1) - differing.
    offset, factor = (weight.ones, 1) if levels[0] == 0 else (torch.full_like(weight.ones, weight.size), 2)
    rows = words.flatten(0, -2) if words.ndim > 1 else words[None]
    if thresholds is None:
        sums = bit_operators.product(rows, weight.words, offset, factor, backend)
    else:
        sums = bit_operators.product_bits(rows, weight.words, offset, factor, thresholds, backend)
    return sums.view(*words.shape[:-1], sums.shape[1])


def level_linear(levels: Tensor, weight: BinaryWeight, backend: str = "auto") -> Tensor:
    """Products of 8-bit levels, such as pixels, with binary weights.

    Args:
        levels: uint8 of shape (…, n).
        weight: from `pack_weight`, of shape (O, n).
        backend: "auto", "torch", "numba" or "triton".

    Returns:
        The sums, int32 (…, O).

    Raises:
        TypeError, ValueError: if an argument is of another type or shape.

    Example:
        >>> weight = pack_weight(torch.tensor([[1.0, -1.0, 1.0]]))
        >>> level_linear(torch.tensor([[255, 5, 10]], dtype=torch.uint8), weight)
        tensor([[260]], dtype=torch.int32)
    """
    if not isinstance(levels, Tensor) or levels.dtype != torch.uint8:
        raise TypeError(f"levels: expected uint8, got {_describe(levels)}")
    if weight.window is not None or not levels.ndim or levels.shape[-1] != weight.size:
        raise ValueError(
            f"levels: expected (…, {weight.size}) for the weight of a linear layer, got {_describe(levels)}"
        )
    rows = levels.flatten(0, -2) if levels.ndim > 1 else levels[None]
    backend = _dispatch.choose(backend, levels.device, torch.float32)
    sums = bit_operators.level_product(rows, weight.words, weight.ones, backend)
    return sums.view(*levels.shape[:-1], sums.shape[1])


def binary_conv2d(
    words: Tensor,
    weight: BinaryWeight,
    *,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    levels: tuple[int, int] = (-1, 1),
    thresholds: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """A convolution of packed bits with binary weights; padding adds zeros, whatever the levels are.

    Args:
        words: int64 of shape (B, H, W, ceil(C / 64)), packed along the channels.
        weight: from `pack_weight`, of shape (O, C, kH, kW).
        stride, padding, dilation: of rows and columns.
        levels, thresholds, backend: as of `binary_linear`.

    Returns:
        The sums, int32 (B, H', W', O), or words (B, H', W', ceil(O / 64)).

    Raises:
        TypeError, ValueError: if an argument is of another type or shape.

    Example:
        >>> words = pack_bits(torch.ones(1, 4, 4, 8))
        >>> binary_conv2d(words, pack_weight(torch.ones(2, 8, 3, 3)), padding=(1, 1))[0, 0, :, 0]
        tensor([32, 48, 48, 32], dtype=torch.int32)
    """
    _check_bits(words, weight, levels, thresholds)
    if weight.window is None or words.ndim != 4:
        raise ValueError(f"words: expected (B, H, W, K) and a convolution's weight, got {_describe(words)}")
    where = (weight.window, stride, padding, dilation)
    under = windows(words, *where)
    linear_weight = weight._replace(window=None, tap_sums=weight.tap_sums.sum(0, keepdim=True, dtype=torch.int32))
    options = {"levels": levels, "backend": backend}
    if levels[0] == 0 or not any(padding):
        return binary_linear(under, linear_weight, thresholds=thresholds, **options)
    # Outside the image the bits are 0, which counts as -1 there: that is taken back.
    inside = windows(torch.ones_like(words[:1, ..., :1]), *where)
    sums = binary_linear(under, linear_weight, **options) + _outside(inside, weight.tap_sums)
    return sums if thresholds is None else pack_bits(sums - thresholds, backend)


def _outside(inside: Tensor, tap_sums: Tensor) -> Tensor:
    """For each position, int32 (1, H', W', O), the sum of the weights whose place is outside the image."""
    return ((1 - inside).double() @ tap_sums.double()).to(torch.int32)


def heaviside_linear(words: Tensor, weight: Tensor, backend: str = "auto") -> Tensor:
    """Sums of integer weights whose bit is set.

    Args:
        words: int64 of shape (…, ceil(n / 64)), from `pack_bits`.
        weight: int32 of shape (n, O); no sum may pass 2**31.
        backend: as of `binary_linear`.

    Returns:
        int32 of shape (…, O).

    Raises:
        TypeError, ValueError: if an argument is of another type or shape.

    Example:
        >>> heaviside_linear(pack_bits(torch.tensor([1.0, 0.0, 1.0])), torch.tensor([[1], [10], [100]]).int())
        tensor([101], dtype=torch.int32)
    """
    _check_words("words", words)
    if weight.dtype != torch.int32 or weight.ndim != 2 or -(-weight.shape[0] // 64) != words.shape[-1]:
        raise ValueError(f"weight: expected int32 of shape (n, O) for {_describe(words)}, got {_describe(weight)}")
    rows = words.flatten(0, -2) if words.ndim > 1 else words[None]
    sums = heaviside_product(rows, weight, _dispatch.choose(backend, words.device, torch.float32))
    return sums.view(*words.shape[:-1], sums.shape[1])
