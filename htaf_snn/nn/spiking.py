"""Fused drop-ins for `snntorch.Leaky` and `norse.torch.LIF`, for sequences, and networks of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .. import functional
from ..functional.sequences import RESETS, check_saving
from ..surrogate import HTAF, parse

__all__ = ["LIF", "LIFState", "Leaky", "Sequential", "TimeDistributed"]


class _Neuron(nn.Module):
    """State and options that the fused neurons share."""

    def __init__(self, surrogate: Callable | str | None, save_dtype, checkpoint_every, backend: str):
        super().__init__()
        check_saving(save_dtype, checkpoint_every)
        surrogate = parse(surrogate) if isinstance(surrogate, str) else surrogate
        if surrogate is not None and not callable(surrogate):
            raise TypeError(f"surrogate: expected a module, its specification or a callable, got {surrogate!r}")
        self.surrogate = HTAF() if surrogate is None else surrogate
        self.save_dtype = save_dtype
        self.checkpoint_every = checkpoint_every
        self.backend = backend

    def _keep(self, name: str, value: float | Tensor, learn: bool) -> None:
        value = torch.as_tensor(value, dtype=None if isinstance(value, Tensor) else torch.float32).detach().clone()
        if learn:
            self.register_parameter(name, nn.Parameter(value))
        else:
            self.register_buffer(name, value)

    def _how(self) -> dict:
        return {
            "surrogate": self.surrogate,
            "save_dtype": self.save_dtype,
            "checkpoint_every": self.checkpoint_every,
            "backend": self.backend,
        }


class Leaky(_Neuron):
    """Leaky integrate-and-fire neurons over a sequence; a fused `snntorch.Leaky`.

    Args:
        beta: decay of the membrane potential a step, clamped into [0, 1]; a number, or a tensor that broadcasts to
            (B, *features), such as (features,) for one a neuron or (C, 1, 1) for one a channel.
        threshold: likewise, not clamped.
        surrogate: a module of `htaf_snn.surrogate`, its specification, or any elementwise callable from potential minus
            threshold to spikes; `HTAF()` by default.
        learn_beta, learn_threshold: make it a parameter.
        reset_mechanism: "subtract", "zero" or "none".
        reset_delay: whether a spike resets in the next step or in its own.
        graded_spikes_factor: what a spike counts, a number or such a tensor.
        learn_graded_spikes_factor: make it a parameter.
        save_dtype, checkpoint_every, backend: as in `htaf_snn.functional.lif`.

    Shape:
        current (T, B, *features) and optionally mem (B, *features), zero by default, to spikes (T, B, *features) in
        the dtype of the current and the last membrane potential (B, *features) in float32 (float64 for float64).

    Raises:
        ValueError: if the reset mechanism or the surrogate is unknown, or save_dtype or checkpoint_every out of range.
        TypeError, ValueError, RuntimeError: in the forward pass, as `htaf_snn.functional.lif`.

    Example:
        >>> lif = Leaky(beta=0.9)
        >>> spikes, mem = lif(torch.full((4, 1, 1), 0.6))
        >>> spikes.flatten()
        tensor([0., 1., 0., 1.])
    """

    def __init__(
        self,
        beta: float | Tensor,
        threshold: float | Tensor = 1.0,
        surrogate: Callable[[Tensor], Tensor] | str | None = None,
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
    ):
        super().__init__(surrogate, save_dtype, checkpoint_every, backend)
        if reset_mechanism not in RESETS:
            expected = ", ".join(RESETS)
            raise ValueError(f"reset_mechanism: expected one of {expected}, got {reset_mechanism!r}")
        self._keep("beta", beta, learn_beta)
        self._keep("threshold", threshold, learn_threshold)
        self._keep("graded_spikes_factor", graded_spikes_factor, learn_graded_spikes_factor)
        self.reset_mechanism = reset_mechanism
        self.reset_delay = reset_delay
        self._graded = learn_graded_spikes_factor or bool((self.graded_spikes_factor != 1).any())

    def forward(self, current: Tensor, mem: Tensor | None = None) -> tuple[Tensor, Tensor]:
        spikes, mem = functional.lif(
            current,
            beta=self.beta,
            threshold=self.threshold,
            reset=self.reset_mechanism,
            reset_delay=self.reset_delay,
            v0=mem,
            **self._how(),
        )
        if self._graded:
            spikes = spikes * self.graded_spikes_factor.to(spikes.dtype)
        return spikes, mem

    def extra_repr(self) -> str:
        return f"reset_mechanism={self.reset_mechanism!r}, reset_delay={self.reset_delay}, backend={self.backend!r}"

    @classmethod
    def from_snntorch(cls, neuron: nn.Module) -> Leaky:
        """A fused copy of a `snntorch.Leaky`, which stays as it is.

        Raises:
            TypeError: if it is another neuron.
            ValueError: if it uses inhibition or quantised states, which are not fused.

        Example:
            >>> import snntorch
            >>> Leaky.from_snntorch(snntorch.Leaky(beta=0.9, spike_grad=HTAF())).beta
            tensor(0.9000)
        """
        from ..integrations.snntorch_adapter import describe_leaky

        return cls(**copy.deepcopy(describe_leaky(neuron)))

    def to_snntorch(self) -> nn.Module:
        """A `snntorch.Leaky` with copies of the parameters, the surrogate as its `spike_grad`.

        Example:
            >>> type(Leaky(beta=0.9).to_snntorch()).__module__
            'snntorch._neurons.leaky'
        """
        from ..integrations.snntorch_adapter import make_leaky

        return make_leaky(copy.deepcopy(self))


class LIFState(NamedTuple):
    """The state of `LIF`, named as Norse names it.

    Attributes:
        v: membrane potential, (B, *features).
        i: synaptic current, likewise.

    Example:
        >>> lif = LIF()
        >>> spikes, state = lif(torch.ones(3, 2, 4))
        >>> more, state = lif(torch.ones(3, 2, 4), state)  # goes on where the first sequence ended
        >>> state.v.shape, state.i.shape
        (torch.Size([2, 4]), torch.Size([2, 4]))
    """

    v: Tensor
    i: Tensor


class LIF(_Neuron):
    """Current-based leaky integrate-and-fire neurons over a sequence; a fused `norse.torch.LIF`.

    Args:
        tau_syn_inv, tau_mem_inv: inverse time constants of current and potential in 1/s; a number, or a tensor that
            broadcasts to (B, *features).
        v_leak, v_th, v_reset: resting, threshold and reset potential, likewise.
        surrogate: as for `Leaky`.
        learn: names of those five that become parameters.
        dt: time step in s.
        detach_reset: let no gradient through the reset, as Norse's recurrent neurons do.
        save_dtype, checkpoint_every, backend: as in `htaf_snn.functional.cuba_lif`.

    Shape:
        current (T, B, *features) and optionally a state (v, i), at rest by default, to spikes (T, B, *features) in
        the dtype of the current and the last `LIFState`, in float32 (float64 for float64).

    Raises:
        ValueError: if `learn` names anything else.
        TypeError, ValueError, RuntimeError: in the forward pass, as `htaf_snn.functional.cuba_lif`.

    Example:
        >>> spikes, state = LIF()(torch.ones(6, 1, 1))
        >>> spikes.flatten()
        tensor([0., 0., 0., 0., 0., 1.])
    """

    def __init__(
        self,
        tau_syn_inv: float | Tensor = 200.0,
        tau_mem_inv: float | Tensor = 100.0,
        v_leak: float | Tensor = 0.0,
        v_th: float | Tensor = 1.0,
        v_reset: float | Tensor = 0.0,
        surrogate: Callable[[Tensor], Tensor] | str | None = None,
        *,
        learn: Collection[str] = (),
        dt: float = 0.001,
        detach_reset: bool = False,
        save_dtype: torch.dtype | None = None,
        checkpoint_every: int | None = None,
        backend: str = "auto",
    ):
        super().__init__(surrogate, save_dtype, checkpoint_every, backend)
        values = {
            "tau_syn_inv": tau_syn_inv,
            "tau_mem_inv": tau_mem_inv,
            "v_leak": v_leak,
            "v_th": v_th,
            "v_reset": v_reset,
        }
        unknown = set(learn) - set(values)
        if unknown:
            raise ValueError(f"learn: expected names of {', '.join(values)}, got {', '.join(sorted(unknown))}")
        for name, value in values.items():
            self._keep(name, value, name in learn)
        self.dt = dt
        self.detach_reset = detach_reset

    def forward(self, current: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, LIFState]:
        v0, i0 = state or (None, None)
        spikes, v, i = functional.cuba_lif(
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
            **self._how(),
        )
        return spikes, LIFState(v, i)

    def extra_repr(self) -> str:
        return f"dt={self.dt}, detach_reset={self.detach_reset}, backend={self.backend!r}"

    @classmethod
    def from_norse(cls, neuron: nn.Module) -> LIF:
        """A fused copy of a `norse.torch.LIF`, which stays as it is; tensors that require a gradient become parameters.

        Raises:
            TypeError: if it is another neuron.
            ValueError: if its method is unknown.

        Example:
            >>> import norse.torch
            >>> LIF.from_norse(norse.torch.LIF()).v_th
            tensor(1.)
        """
        from ..integrations.norse_adapter import describe_lif

        return cls(**describe_lif(neuron))

    def to_norse(self) -> nn.Module:
        """A `norse.torch.LIF` with copies of the parameters; for this package's surrogates `register` comes into force.

        Raises:
            ValueError: if `detach_reset` is set, or the surrogate cannot be a Norse method: a callable of another
                origin, smooth mode, or learnable parameters.

        Example:
            >>> type(LIF().to_norse()).__module__
            'norse.torch.module.lif'
        """
        from ..integrations.norse_adapter import make_lif

        return make_lif(self)


class TimeDistributed(nn.Module):
    """Apply a layer that knows no time to every step of a sequence at once.

    Args:
        layer: any module from (N, *in_features) to (N, *out_features).

    Shape:
        (T, B, *in_features) to (T, B, *out_features).

    Example:
        >>> TimeDistributed(nn.Conv2d(2, 4, 3))(torch.zeros(5, 3, 2, 8, 8)).shape
        torch.Size([5, 3, 4, 6, 6])
    """

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return _over_steps(self.layer, x)


def _over_steps(layer: nn.Module, x: Tensor) -> Tensor:
    return layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class Sequential(nn.Sequential):
    """A chain for sequences: fused neurons go through time, from rest; other layers are applied to all steps at once.

    Args:
        *args: layers, or one `OrderedDict` of them, as of `torch.nn.Sequential`.

    Shape:
        (T, B, *features) to (T, B, *features) of the last layer; of neurons the spikes are passed on.

    Example:
        >>> net = Sequential(nn.Linear(20, 10), Leaky(beta=0.9), nn.Linear(10, 2), Leaky(beta=0.9))
        >>> net(torch.rand(5, 3, 20)).shape
        torch.Size([5, 3, 2])
    """

    def forward(self, x: Tensor) -> Tensor:
        for layer in self:
            x = layer(x)[0] if isinstance(layer, _Neuron) else _over_steps(layer, x)
        return x
