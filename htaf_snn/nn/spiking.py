"""Fused drop-ins for `snntorch.Leaky` and `norse.torch.LIF`, for sequences."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .. import functional
from .._checks import check_number, check_real, describe
from ..functional.sequences import RESETS, check_saving, check_time_step
from ..kernels import _dispatch
from ..surrogate import SurrogateLike, resolve
from ..surrogate.elementwise import is_transformed

# Arguments of snnTorch and Norse, and what to write here instead.
_INSTEAD = {
    "spike_grad": "surrogate=",
    "init_hidden": "nothing: every sequence starts from rest, and the last state is the second result",
    "output": "nothing: spikes and the last state are always returned",
    "inhibition": "snntorch.Leaky, which has it",
    "state_quant": "snntorch.Leaky, which has it",
    "reset": "reset_mechanism=",
    "method": "surrogate=",
    "alpha": "it into the surrogate, as in surrogate='htaf(alpha=2)'",
    "p": "htaf_snn.interop.from_norse(norse.torch.LIF(p))",
}


class Neuron(nn.Module):
    """State and options that the fused neurons share."""

    def __init__(
        self,
        surrogate: SurrogateLike,
        save_dtype: torch.dtype | None,
        checkpoint_every: int | None,
        backend: str,
        unknown: dict,
    ):
        super().__init__()
        for name in unknown:
            remedy = f"; write {_INSTEAD[name]}" if name in _INSTEAD else ""
            raise TypeError(f"{type(self).__name__}: got an unexpected argument {name!r}{remedy}")
        check_saving(save_dtype, checkpoint_every)
        _dispatch.check_name(backend)
        self.surrogate = resolve(surrogate)
        self.save_dtype = save_dtype
        self.checkpoint_every = checkpoint_every
        self.backend = backend

    def _keep(self, name: str, value: float | Tensor, learn: bool) -> None:
        if not isinstance(value, Tensor):
            check_number(name, value)
            value = torch.tensor(float(value), dtype=torch.float32)
        check_real(name, value)
        value = value.detach().clone() if value.is_floating_point() else value.to(torch.float32)
        if value.device.type != "meta" and value.isnan().any():
            raise ValueError(f"{name}: expected numbers, got NaN in {describe(value)}")
        if learn:
            self.register_parameter(name, nn.Parameter(value))
        else:
            self.register_buffer(name, value)

    def _options(self) -> dict:
        return {
            "surrogate": self.surrogate,
            "save_dtype": self.save_dtype,
            "checkpoint_every": self.checkpoint_every,
            "backend": self.backend,
        }


def _is_one(factor: Tensor) -> bool:
    """Return whether a factor is known to be 1; it is not read where that would stall a device or break a graph."""
    if factor.requires_grad or factor.device.type != "cpu" or torch.compiler.is_compiling() or is_transformed():
        return False
    return bool((factor == 1).all())


class Leaky(Neuron):
    """Leaky integrate-and-fire neurons over a sequence; a fused `snntorch.Leaky`.

    Args:
        beta: decay of the membrane potential per time step, clamped to [0, 1]; a number, or a tensor that broadcasts to
            (B, *features), such as (features,) for one per neuron or (C, 1, 1) for one per channel.
        threshold: likewise, not clamped.
        surrogate: in any form, see `htaf_snn.surrogate.resolve`, at any hardness; resets are hard.
        learn_beta, learn_threshold: make it trainable.
        reset_mechanism: "subtract", "zero" or "none".
        reset_delay: whether a spike resets the potential in the next time step, or in its own.
        graded_spikes_factor: the value of a spike, a number or such a tensor.
        learn_graded_spikes_factor: make it trainable.
        save_dtype, checkpoint_every, backend: as in `htaf_snn.functional.leaky`.
        **unknown: refused; for other arguments of snnTorch's neurons the error says what to write instead.

    Shape:
        current (T, B, *features) and optionally mem (B, *features), zero by default, to spikes (T, B, *features) in
        the dtype of the current and the last membrane potential (B, *features) in float32 (float64 for float64). A
        single time step (B, features) is refused; one of (B, C, H, W) cannot be distinguished from a sequence.

    Raises:
        TypeError: if an argument is unknown or of the wrong type.
        ValueError: if the reset mechanism, the surrogate or the backend is unknown, a value is NaN, or save_dtype or
            checkpoint_every is out of range.
        TypeError, ValueError, RuntimeError: in the forward pass, as `htaf_snn.functional.leaky`.

    Example:
        >>> lif = Leaky(beta=0.9)
        >>> spikes, mem = lif(torch.full((4, 1, 1), 0.6))
        >>> spikes.flatten()
        tensor([0., 1., 0., 1.])
    """

    beta: Tensor
    threshold: Tensor
    graded_spikes_factor: Tensor

    def __init__(
        self,
        beta: float | Tensor,
        threshold: float | Tensor = 1.0,
        surrogate: SurrogateLike = "htaf",
        *,
        learn_beta: bool = False,
        learn_threshold: bool = False,
        reset_mechanism: str = "subtract",
        reset_delay: bool = True,
        graded_spikes_factor: float | Tensor = 1.0,
        learn_graded_spikes_factor: bool = False,
        save_dtype: torch.dtype | None = None,
        checkpoint_every: int | None = None,
        backend: str = "auto",
        **unknown,
    ):
        super().__init__(surrogate, save_dtype, checkpoint_every, backend, unknown)
        if reset_mechanism not in RESETS:
            expected = ", ".join(RESETS)
            raise ValueError(f"reset_mechanism: expected one of {expected}, got {reset_mechanism!r}")
        self._keep("beta", beta, learn_beta)
        self._keep("threshold", threshold, learn_threshold)
        self._keep("graded_spikes_factor", graded_spikes_factor, learn_graded_spikes_factor)
        self.reset_mechanism = reset_mechanism
        self.reset_delay = reset_delay

    def forward(self, current: Tensor, mem: Tensor | None = None) -> tuple[Tensor, Tensor]:
        spikes, mem = functional.leaky(
            current,
            beta=self.beta,
            threshold=self.threshold,
            reset=self.reset_mechanism,
            reset_delay=self.reset_delay,
            v0=mem,
            **self._options(),
        )
        if not _is_one(self.graded_spikes_factor):
            spikes = spikes * self.graded_spikes_factor.to(spikes.dtype)
        return spikes, mem

    def extra_repr(self) -> str:
        return f"reset_mechanism={self.reset_mechanism!r}, reset_delay={self.reset_delay}, backend={self.backend!r}"


class LIFState(NamedTuple):
    """The state of `LIF`, named as Norse names it.

    Attributes:
        v: membrane potential, (B, *features).
        i: synaptic current, likewise.

    Example:
        >>> lif = LIF()
        >>> spikes, state = lif(torch.ones(3, 2, 4))
        >>> more, state = lif(torch.ones(3, 2, 4), state)  # continues where the first sequence ended
        >>> state.v.shape, state.i.shape
        (torch.Size([2, 4]), torch.Size([2, 4]))
    """

    v: Tensor
    i: Tensor


class LIF(Neuron):
    """Current-based leaky integrate-and-fire neurons over a sequence; a fused `norse.torch.LIF`.

    Args:
        tau_syn_inv, tau_mem_inv: inverse time constants of current and potential in 1/s; a number, or a tensor that
            broadcasts to (B, *features).
        v_leak, v_th, v_reset: resting, threshold and reset potential, likewise.
        surrogate: as for `Leaky`.
        learn: names of those five to make trainable.
        dt: time step in s.
        detach_reset: pass no gradient through the reset, as Norse's recurrent neurons do.
        save_dtype, checkpoint_every, backend: as in `htaf_snn.functional.lif`.
        **unknown: as for `Leaky`.

    Shape:
        current (T, B, *features) and optionally a state (v, i), at rest by default, to spikes (T, B, *features) in
        the dtype of the current and the last `LIFState`, in float32 (float64 for float64).

    Raises:
        TypeError: if an argument is unknown or of the wrong type.
        ValueError: if `learn` names anything else, the surrogate or the backend is unknown, or a value is NaN.
        TypeError, ValueError, RuntimeError: in the forward pass, as `htaf_snn.functional.lif`.

    Example:
        >>> spikes, state = LIF()(torch.ones(6, 1, 1))
        >>> spikes.flatten()
        tensor([0., 0., 0., 0., 0., 1.])
    """

    tau_syn_inv: Tensor
    tau_mem_inv: Tensor
    v_leak: Tensor
    v_th: Tensor
    v_reset: Tensor

    def __init__(
        self,
        tau_syn_inv: float | Tensor = 200.0,
        tau_mem_inv: float | Tensor = 100.0,
        v_leak: float | Tensor = 0.0,
        v_th: float | Tensor = 1.0,
        v_reset: float | Tensor = 0.0,
        surrogate: SurrogateLike = "htaf",
        *,
        learn: Collection[str] = (),
        dt: float = 0.001,
        detach_reset: bool = False,
        save_dtype: torch.dtype | None = None,
        checkpoint_every: int | None = None,
        backend: str = "auto",
        **unknown,
    ):
        super().__init__(surrogate, save_dtype, checkpoint_every, backend, unknown)
        values = {
            "tau_syn_inv": tau_syn_inv,
            "tau_mem_inv": tau_mem_inv,
            "v_leak": v_leak,
            "v_th": v_th,
            "v_reset": v_reset,
        }
        if isinstance(learn, str) or not set(learn) <= set(values):
            got = repr(learn) if isinstance(learn, str) else ", ".join(sorted(set(learn) - set(values)))
            raise ValueError(f"learn: expected names of {', '.join(values)}, as in ['v_th'], got {got}")
        for name, value in values.items():
            self._keep(name, value, name in learn)
        check_time_step(dt)
        self.dt = dt
        self.detach_reset = detach_reset

    def forward(self, current: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, LIFState]:
        v0, i0 = state or (None, None)
        spikes, v, i = functional.lif(
            current,
            tau_syn_inv=self.tau_syn_inv,
            tau_mem_inv=self.tau_mem_inv,
            v_leak=self.v_leak,
            threshold=self.v_th,
            v_reset=self.v_reset,
            dt=self.dt,
            detach_reset=self.detach_reset,
            v0=v0,
            i0=i0,
            **self._options(),
        )
        return spikes, LIFState(v, i)

    def extra_repr(self) -> str:
        return f"dt={self.dt}, detach_reset={self.detach_reset}, backend={self.backend!r}"
