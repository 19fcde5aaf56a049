"""Neurons over sequences."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .._checks import check_floating, check_number, check_real, describe
from ..kernels import _dispatch
from ..kernels.lif import reference as lif_reference
from ..kernels.lif.fused import ResetsDifferError, fused_cuba, fused_leaky, is_in_kernel
from ..surrogate import Surrogate, SurrogateLike, resolve
from ..surrogate.elementwise import is_transformed

RESETS = ("subtract", "zero", "none")


def _resolved(surrogate: SurrogateLike, x: Tensor) -> Surrogate:
    """Return the surrogate; raise ValueError unless its parameters fit the neurons of x."""
    resolved = resolve(surrogate)
    for name, value in resolved.values().items():
        if isinstance(value, Tensor):
            _check_over_neurons(name, value, x)
    return resolved


def _check_sequence(x) -> torch.dtype:
    """Check currents and return the dtype of the state: float64 for float64, else float32."""
    check_floating("x", x)
    if torch.jit.is_tracing():
        raise ValueError("x: expected no torch.jit.trace, which loses gradients of fused neurons; use torch.export")
    if x.ndim < 3:
        remedy = "a single time step is x[None], a single neuron per sample is x[..., None]"
        raise ValueError(f"x: expected currents of shape (T, B, features, ...), got {describe(x)}; {remedy}")
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _backend(backend: str, x: Tensor, dtype: torch.dtype, surrogate: Surrogate) -> str:
    """Return the backend for these currents; "auto" is torch where only plain operations give every derivative.

    Kernels have a gradient, but no forward-mode or vmapped derivative, and an exported graph keeps the gradients of
    operators and plain operations alone.
    """
    chosen = _dispatch.choose(backend, x.device, dtype)
    if torch.compiler.is_exporting() and surrogate.formula is None and torch.is_grad_enabled():
        raise ValueError(
            "surrogate: expected one of htaf_snn, such as 'atan', to export a trainable network; the exported graph "
            f"would lose the gradient of {surrogate!r}; for inference, export under torch.no_grad()"
        )
    plain = is_transformed() or (torch.compiler.is_exporting() and not is_in_kernel(surrogate))
    if not plain or chosen == "torch":
        return chosen
    if backend == "auto":
        return "torch"
    place = "torch.func, forward-mode differentiation and torch.export"
    raise ValueError(f"backend: expected auto or torch inside {place}, got {backend!r}")


def _attempted(backend: str, fused: Callable, *arguments) -> tuple[Tensor, ...] | None:
    """Return a kernel's outputs; for "auto" None where it would reset by other spikes than the surrogate's."""
    try:
        return fused(*arguments)
    except ResetsDifferError:
        if backend != "auto":
            raise
    return None


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
        return torch.tensor(min(max(value, lowest), highest), dtype=dtype, device=x.device)
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
    """Raise ValueError unless a tensor broadcasts to one time step (B, *features) of the currents."""
    try:
        value.expand(x.shape[1:])
    except RuntimeError:
        expected = f"a shape that broadcasts to {tuple(x.shape[1:])}"
        raise ValueError(f"{name}: expected {expected}, got {describe(value)}") from None


def _state(name: str, value: Tensor | None, x: Tensor, dtype: torch.dtype, rest: Tensor | None = None) -> Tensor:
    if value is None:
        rest = torch.zeros((), dtype=dtype, device=x.device) if rest is None else rest
        return rest.expand(x.shape[1:])
    if not isinstance(value, Tensor) or value.shape != x.shape[1:] or value.device != x.device:
        expected = f"a tensor of shape {tuple(x.shape[1:])} on {x.device}, one entry per neuron of x without its time"
        raise ValueError(f"{name}: expected {expected}, got {describe(value)}")
    check_floating(name, value)
    return value.to(dtype)


def check_saving(save_dtype: torch.dtype | None, checkpoint_every: int | None) -> None:
    """Raise ValueError unless potentials can be kept in that dtype, every so many time steps."""
    if save_dtype not in (None, torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(f"save_dtype: expected None, float32, bfloat16 or float16, got {save_dtype!r}")
    if checkpoint_every is not None and (not isinstance(checkpoint_every, int) or checkpoint_every < 1):
        raise ValueError(f"checkpoint_every: expected a number of steps, at least 1, got {checkpoint_every!r}")


def check_time_step(dt: float) -> None:
    """Raise ValueError unless a time step is a positive, finite number of seconds."""
    check_number("dt", dt)
    if not 0 < dt < math.inf:
        raise ValueError(f"dt: expected a positive number of seconds, got {dt!r}")


def _in_pieces(x: Tensor, steps: int, run: Callable, *state: Tensor) -> tuple:
    """Run over `steps` time steps at a time, keeping the states between the pieces and no trace."""
    if is_transformed():
        place = "torch.func and forward-mode differentiation"
        raise ValueError(f"checkpoint_every: expected None inside {place}, got {steps}")
    pieces = []
    for piece in x.split(steps):
        outputs, *state = checkpoint(run, piece, *state, use_reentrant=False, preserve_rng_state=False)
        pieces.append(outputs)
    return torch.cat(pieces), *state


def leaky(
    x: Tensor,
    *,
    beta: float | Tensor,
    threshold: float | Tensor = 1.0,
    surrogate: SurrogateLike = "htaf",
    reset: str = "subtract",
    reset_delay: bool = True,
    v0: Tensor | None = None,
    return_trace: bool = False,
    save_dtype: torch.dtype | None = None,
    checkpoint_every: int | None = None,
    backend: str = "auto",
) -> tuple[Tensor, ...]:
    """Run leaky integrate-and-fire neurons over a whole sequence, equal to stepping snnTorch's `Leaky`.

    u[t] = beta * u[t-1] + x[t] - r[t] * threshold, with spikes s[t] = u[t] > threshold and the reset
    r[t] = u[t-1] > threshold, through which no gradient flows. With reset "zero" the potential becomes
    (1 - r[t]) * u[t-1] before the decay. Without `reset_delay` a spike resets in its own time step, and the gradient
    flows through that, as in snnTorch.

    Args:
        x: input currents (T, B, *features), features of at least one dimension, float16, bfloat16, float32 or
            float64. The state is float64 for float64 and else float32.
        beta: decay of the potential per time step, a number or a tensor that broadcasts to (B, *features); values
            outside [0, 1] are clamped, as in snnTorch.
        threshold: likewise, not clamped.
        surrogate: in any form, see `surrogate.resolve`, at any hardness; resets are hard. A callable's spikes also
            reset the neuron, as in snnTorch. `torch.compile` does not compile a callable, and one that fires at the
            threshold itself, as SpikingJelly's do, is stepped in torch where that makes a difference.
        reset: "subtract", "zero" or "none".
        reset_delay: whether a spike resets in the next time step (True) or in its own.
        v0: initial potential (B, *features); zero by default.
        return_trace: also return the potential after each step.
        save_dtype: dtype in which the potentials are kept for the backward pass, such as bfloat16; None is the
            state's. Gradients are then those of the rounded potentials; spikes do not change.
        checkpoint_every: keep the potentials only every so many time steps, and recompute the others in the backward
            pass. The input is kept in any case.
        backend: "auto", or "torch", "numba" (CPU), "triton" (GPU), see `backends`. "auto" is "torch" inside
            `torch.func` and for forward-mode derivatives.

    Returns:
        (spikes, v) or (spikes, v, trace): spikes (T, B, *features) in the dtype of x, exactly 0 and 1 at
        hardness 1; the last potential (B, *features) and the trace (T, B, *features) in the state's dtype. Gradients
        exist for x, beta, threshold, v0 and the surrogate's own parameters; second derivatives only with
        backend "torch".

    Raises:
        TypeError: if x or a tensor is not floating-point, or the surrogate has no known form.
        ValueError: if a shape, device, name or number does not fit.
        RuntimeError: if the backend is not available.

    Reference:
        Eshraghian et al. 2023, "Training spiking neural networks using lessons from deep learning", Proceedings of the
        IEEE 111:1016, for the neuron; snnTorch's `Leaky` for the order of decay, input and reset.

    Example:
        >>> spikes, v = leaky(torch.full((4, 1, 1), 0.6), beta=0.9)
        >>> spikes.flatten(), v.shape
        (tensor([0., 1., 0., 1.]), torch.Size([1, 1]))
    """
    dtype = _check_sequence(x)
    surrogate = _resolved(surrogate, x)
    if reset not in RESETS:
        raise ValueError(f"reset: expected one of {', '.join(RESETS)}, got {reset!r}")
    check_saving(save_dtype, checkpoint_every)
    beta = _over_neurons("beta", beta, x, dtype, lowest=0.0, highest=1.0)
    threshold = _over_neurons("threshold", threshold, x, dtype)
    v0 = _state("v0", v0, x, dtype)
    chosen = _backend(backend, x, dtype, surrogate)

    def run(x: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        flat = (beta.expand(v.shape).flatten(), threshold.expand(v.shape).flatten(), v.flatten())
        options = (surrogate, reset, reset_delay, return_trace, save_dtype or dtype, chosen)
        fused = None if chosen == "torch" else _attempted(backend, fused_leaky, x, *flat, *options)
        if fused is not None:
            spikes, trace, v = fused
            return spikes, v.view(x.shape[1:]), trace
        spikes, v, trace = lif_reference.leaky(
            x.to(dtype), beta, threshold, v, surrogate, partial(surrogate.at_hardness, 1.0), reset, reset_delay
        )
        return spikes.to(x.dtype), v, trace

    if torch.compiler.is_compiling() and surrogate.formula is None and chosen != "torch":
        run = _uncompiled(run)
    if checkpoint_every is None:
        spikes, v, trace = run(x, v0)
    elif return_trace:
        raise ValueError("checkpoint_every: expected None with return_trace, which keeps every potential")
    else:
        spikes, v = _in_pieces(x, checkpoint_every, lambda *given: run(*given)[:2], v0)
    return (spikes, v, trace) if return_trace else (spikes, v)


def lif(
    x: Tensor,
    *,
    tau_syn_inv: float | Tensor = 200.0,
    tau_mem_inv: float | Tensor = 100.0,
    v_leak: float | Tensor = 0.0,
    threshold: float | Tensor = 1.0,
    v_reset: float | Tensor = 0.0,
    dt: float = 0.001,
    surrogate: SurrogateLike = "htaf",
    detach_reset: bool = False,
    v0: Tensor | None = None,
    i0: Tensor | None = None,
    save_dtype: torch.dtype | None = None,
    checkpoint_every: int | None = None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor, Tensor]:
    """Run current-based leaky integrate-and-fire neurons over a whole sequence, equal to Norse's `LIF`.

    In each time step i += x, v += dt * tau_mem_inv * (v_leak - v + i), i -= dt * tau_syn_inv * i, a spike where
    v > threshold, and v = v_reset where there is one.

    Args:
        x: input currents (T, B, *features), as for `leaky`.
        tau_syn_inv: inverse time constant of the current in 1/s, a number or a tensor that broadcasts to
            (B, *features).
        tau_mem_inv: that of the potential, likewise.
        v_leak, threshold, v_reset: potentials, likewise.
        dt: time step in s, a number.
        surrogate: as for `leaky`.
        detach_reset: let no gradient through the reset, as Norse's recurrent neurons do; its feed-forward ones let
            it through.
        v0: initial potential (B, *features); v_leak by default.
        i0: initial current (B, *features); zero by default.
        save_dtype, checkpoint_every, backend: as for `leaky`.

    Returns:
        (spikes, v, i): spikes (T, B, *features) in the dtype of x; last potential and current (B, *features) in the
        state's dtype. Gradients exist for x, all parameters and both initial states; second derivatives only with
        backend "torch". Those of the time constants need the input, which is then kept too.

    Raises:
        TypeError, ValueError, RuntimeError: as `leaky`.

    Reference:
        Norse's `lif_feed_forward_step`, whose Euler step and order of operations it has.

    Example:
        >>> spikes, v, i = lif(torch.full((6, 1, 1), 1.0))
        >>> spikes.flatten()
        tensor([0., 0., 0., 0., 0., 1.])
    """
    dtype = _check_sequence(x)
    surrogate = _resolved(surrogate, x)
    check_saving(save_dtype, checkpoint_every)
    check_time_step(dt)
    threshold = _over_neurons("threshold", threshold, x, dtype)
    leak = _over_neurons("v_leak", v_leak, x, dtype)
    v_reset = _over_neurons("v_reset", v_reset, x, dtype)
    decay_mem = dt * _over_neurons("tau_mem_inv", tau_mem_inv, x, dtype)
    decay_syn = -dt * _over_neurons("tau_syn_inv", tau_syn_inv, x, dtype)
    v0 = _state("v0", v0, x, dtype, rest=leak.detach())
    i0 = _state("i0", i0, x, dtype)
    chosen = _backend(backend, x, dtype, surrogate)
    parameters = (decay_mem, decay_syn, leak, threshold, v_reset)

    def run(x: Tensor, v: Tensor, i: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # Stacked while small, and with all the dimensions of v, for its own to be expanded.
        stacked = torch.stack(torch.broadcast_tensors(*parameters, v.new_empty((1,) * v.ndim))[:-1])
        flat = (stacked.expand(-1, *v.shape).flatten(1), v.flatten(), i.flatten())
        options = (surrogate, detach_reset, save_dtype or dtype, chosen)
        fused = None if chosen == "torch" else _attempted(backend, fused_cuba, x, *flat, *options)
        if fused is not None:
            spikes, v, i = fused
            return spikes, v.view(x.shape[1:]), i.view(x.shape[1:])
        spikes, v, i, _ = lif_reference.cuba(
            x.to(dtype), *parameters, v, i, surrogate, partial(surrogate.at_hardness, 1.0), detach_reset
        )
        return spikes.to(x.dtype), v, i

    if torch.compiler.is_compiling() and surrogate.formula is None and chosen != "torch":
        run = _uncompiled(run)
    if checkpoint_every is None:
        return run(x, v0, i0)
    return _in_pieces(x, checkpoint_every, run, v0, i0)
