"""Neurons over sequences as layers: those of `htaf_snn.neurons`, and users' own."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Collection, Mapping
from itertools import chain
from types import FunctionType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .._checks import check_choice, check_number, check_real, describe
from ..functional import sequences
from ..kernels import _dispatch
from ..kernels.fingerprint import fingerprint
from ..kernels.neuron import fused
from ..kernels.neuron.source import Sources, check_names
from ..neurons import NEURONS, Neuron
from ..surrogate import resolve
from ..surrogate.elementwise import is_transformed

# Arguments of snnTorch and Norse, and what to write here instead.
_INSTEAD = {
    "spike_grad": "surrogate=",
    "init_hidden": "nothing: every sequence starts from rest, and the last state is the second result",
    "output": "nothing: spikes and the last state are always returned",
    "inhibition": "the library's own neuron, which has it",
    "state_quant": "the library's own neuron, which has it",
    "reset": "reset_mechanism=",
    "method": "surrogate=",
    "p": "htaf_snn.interop.from_norse(norse.torch.LIF(p))",
}
_SHARED = ("surrogate", "learn", "save_dtype", "checkpoint_every", "backend", "options", "definition", "training")


_TAKEN = """    surrogate: in any form, see `htaf_snn.surrogate.resolve`, at any hardness; resets are hard.
    learn: names of parameters to make trainable.
    save_dtype, checkpoint_every, backend: as in `htaf_snn.functional.run`."""


def _text(cls: type[NeuronLayer]) -> str:
    """Return the text of a layer's class: that of its neuron, and what it takes."""
    neuron, own, base = cls.definition, cls.__dict__.get("__doc__"), cls.__mro__[1]
    taken, spelt = _TAKEN, {}
    if not neuron.spikes:
        taken = taken.partition("\n")[2]
    if issubclass(cls, InSnnTorchsWords):
        flags = ", ".join(f"learn_{name}" for name in neuron.parameters)
        taken = taken.replace("learn: names of parameters to make trainable", f"{flags}: make it trainable")
        spelt = {"reset": "reset_mechanism"}
    parts = [sequences.documented(neuron, spelt, taken, cls.defaults)]
    inherited = None if base in (NeuronLayer, InSnnTorchsWords) else base.__doc__
    for text in filter(None, (inherited, own)):
        extra = inspect.cleandoc(text)
        parts.append(extra.partition("\n\n")[2] if text is inherited else extra)
    if neuron.key == neuron.name and not own:
        made = f"{cls.__name__}({{}})" if inherited is None else _RECURRENT[base.__name__].format(cls.__name__)
        parts.append(sequences.example(neuron, f"{made}(torch.ones(5, 2, 3))").strip())
    return "\n\n".join(parts)


_RECURRENT = {"_OfSnnTorch": "{}({{}}, linear_features=3)", "_OfNorse": "{}(3, 3)"}


def _signature(cls: type[NeuronLayer]) -> inspect.Signature:
    """Return what a layer takes, as editors show it."""
    neuron, in_snntorchs = cls.definition, issubclass(cls, InSnnTorchsWords)
    kinds, none = inspect.Parameter, inspect.Parameter.empty
    parameters = [
        kinds(name, kinds.POSITIONAL_OR_KEYWORD, default=none if value is None else value, annotation="float | Tensor")
        for name, value in sorted(neuron.parameters.items(), key=lambda item: item[1] is not None)
    ]
    taken = [p for p in inspect.signature(cls.__init__).parameters.values() if p.name != "self"]
    first = [p for p in taken if p.kind is kinds.POSITIONAL_OR_KEYWORD]
    types = {p.name: p.annotation for p in (*inspect.signature(NeuronLayer.__init__).parameters.values(), *taken)}
    types |= {"surrogate": "SurrogateLike"}
    options: dict[str, Any] = {"surrogate": "htaf"} if neuron.spikes else {}
    options |= {("reset_mechanism" if in_snntorchs and n == "reset" else n): v[0] for n, v in neuron.options.items()}
    options |= {name: value for name, value in cls.defaults.items() if name in neuron.options}
    options |= {f"learn_{name}": False for name in neuron.parameters} if in_snntorchs else {"learn": ()}
    options |= {p.name: p.default for p in taken if p.kind is kinds.KEYWORD_ONLY}
    options |= {"save_dtype": None, "checkpoint_every": None, "backend": "auto"}
    named = [
        kinds(name, kinds.KEYWORD_ONLY, default=value, annotation=types.get(name, type(value).__name__))
        for name, value in options.items()
    ]
    return inspect.Signature([*first, *parameters, *named])


class OverTime(nn.Module):
    """A module over sequences that can be run in parts: `module(x, state)` returns its output and its state.

    The base class of neurons and of what else carries something from one time step to the next. `state` is what the
    call for the part before has returned, or None for rest.

    Example:
        >>> class Sum(OverTime):
        ...     def forward(self, x, state=None):
        ...         total = x.cumsum(0) if state is None else state + x.cumsum(0)
        ...         return total, total[-1]
        >>> first, state = Sum()(torch.ones(2, 1))
        >>> Sum()(torch.ones(2, 1), state)[0].flatten()
        tensor([3., 4.])
    """


class NeuronLayer(OverTime):
    """Neurons of one kind over a sequence; the base class of all their layers.

    Args:
        *arguments: the neuron's parameters in order, then the surrogate.
        surrogate: in any form, see `htaf_snn.surrogate.resolve`, at any hardness; resets are hard.
        learn: names of parameters to make trainable.
        save_dtype, checkpoint_every, backend: as in `htaf_snn.functional.run`.
        **named: the neuron's parameters, each a number or a tensor that broadcasts to (B, *features), such as
            (features,) for one per neuron or (C, 1, 1) for one per channel, and its options.

    Shape:
        x (T, B, *features) and optionally a state, at rest by default, to the output (T, B, *features) in the dtype of
        x and the last state: a tensor (B, *features), or a named tuple of several, in float32 (float64 for float64). A
        single time step (B, features) is refused; one of (B, C, H, W) cannot be distinguished from a sequence.

    Raises:
        TypeError: if an argument is unknown, missing or of the wrong type.
        ValueError: if an option, a name in `learn`, the surrogate or the backend is unknown, or a value is NaN.
        TypeError, ValueError, RuntimeError: in the forward pass, as `htaf_snn.functional.run`.

    Example:
        >>> layer = LIF(v_th=torch.full((4,), 0.5), learn=("v_th",))
        >>> isinstance(layer, NeuronLayer), layer.v_th.requires_grad
        (True, True)
    """

    definition: ClassVar[Neuron]
    _is_recurrent: ClassVar[bool] = False
    defaults: ClassVar[dict[str, Any]] = {}
    """Options whose default is another than the neuron's."""

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if "definition" in cls.__dict__:
            cls.__doc__, cls.__signature__ = _text(cls), _signature(cls)  # type: ignore[attr-defined]

    def __init__(
        self,
        *arguments: Any,
        learn: Collection[str] = (),
        save_dtype: torch.dtype | None = None,
        checkpoint_every: int | None = None,
        backend: str = "auto",
        **named: Any,
    ):
        super().__init__()
        neuron = self.definition
        names = (*neuron.parameters, *(("surrogate",) if neuron.spikes else ()))
        if len(arguments) > len(names):
            raise TypeError(
                f"{type(self).__name__}: expected at most {', '.join(names)}, got {len(arguments)} arguments"
            )
        given = dict(zip(names, arguments, strict=False))
        for name in named:
            if name in given or name not in (*names, *neuron.options):
                remedy = f"; write {_INSTEAD[name]}" if name in _INSTEAD and name not in given else ""
                raise TypeError(f"{type(self).__name__}: got an unexpected argument {name!r}{remedy}")
        given |= {name: value for name, value in self.defaults.items() if name in neuron.options} | named
        sequences.check_saving(save_dtype, checkpoint_every)
        _dispatch.check_name(backend)
        if neuron.spikes:
            self.surrogate = resolve(given.pop("surrogate", "htaf"))
        self.options = sequences.check_options(neuron, given)
        self._keep_all(sequences.check_arguments(neuron, given), learn)
        self.save_dtype, self.checkpoint_every, self.backend = save_dtype, checkpoint_every, backend

    def _keep_all(self, values: Mapping[str, Any], learn: Collection[str]) -> None:
        if isinstance(learn, str) or not set(learn) <= set(values):
            got = repr(learn) if isinstance(learn, str) else ", ".join(sorted(set(learn) - set(values)))
            expected = f"names of {', '.join(values)}, as in [{next(iter(values), '')!r}]"
            raise ValueError(f"learn: expected {expected}, got {got}")
        for name, value in values.items():
            if name == "dt":
                sequences.check_time_step(value)
            self._keep(name, value, name in learn)
        sequences.check_greater(self.definition, {name: getattr(self, name) for name in values})

    def _keep(self, name: str, value: float | Tensor, learn: bool) -> None:
        if not isinstance(value, Tensor):
            check_number(name, value)
            value = torch.tensor(float(value), dtype=torch.float32)
        check_real(name, value)
        if value.requires_grad and not learn:
            raise ValueError(f"{name}: expected a tensor without gradient, or its name among those to learn, got both")
        value = value.detach().clone() if value.is_floating_point() else value.to(torch.float32)
        if value.device.type != "meta" and value.isnan().any():
            raise ValueError(f"{name}: expected numbers, got NaN in {describe(value)}")
        if learn:
            self.register_parameter(name, nn.Parameter(value))
        else:
            self.register_buffer(name, value)

    def arguments(self) -> dict[str, Any]:
        """Return what the layer passes on to `htaf_snn.functional.run` besides the input and the state."""
        parameters = {name: getattr(self, name) for name in self.definition.parameters}
        surrogate = {"surrogate": self.surrogate} if self.definition.spikes else {}
        kept = {"save_dtype": self.save_dtype, "checkpoint_every": self.checkpoint_every, "backend": self.backend}
        return {**parameters, **self.options, **surrogate, **kept}

    def forward(self, x: Tensor, state: sequences.State | None = None) -> tuple[Tensor, sequences.State]:
        return sequences.run(self.definition, x, state=state, **self.arguments())

    def source(self, backend: str = "numba") -> str:
        """Return the text of the kernels that the layer runs by, forwards and backwards.

        Args:
            backend: "numba" or "triton".

        Raises:
            ValueError: if the backend is another, or no kernel can be made of the neuron.

        Example:
            >>> print(LI().source().partition("for n in range(size):")[2].partition("output_row[n]")[0])
            <BLANKLINE>
                            x = x_row[n]
                            v = v_block[n]
                            i = i_block[n]
                            y1 = i + x
                            output = v + dt * tau_mem_inv * (v_leak - v + y1)
                            i_new = y1 + -dt * tau_syn_inv * y1
                            v_new = output
            <BLANKLINE>
        """
        made = self.sources(backend)
        return f"{made.forward.text}\n\n{made.backward.text}"

    def sources(self, backend: str = "numba") -> Sources:
        """Return the kernels of `source` one by one, and what they save.

        Args:
            backend: as for `source`.

        Returns:
            The two texts with the names of their arguments, the number of values saved per neuron and time step, and
            whether the input is kept too.

        Raises:
            ValueError: as `source`.
        """
        check_choice("backend", backend, ("numba", "triton"))
        neuron = self.definition
        named = {name: getattr(self, name) for name in neuron.parameters}
        prepared = neuron.prepare(**named) if neuron.prepare else named
        surrogate = self.surrogate if neuron.spikes else None
        return fused.sources(neuron, prepared, self.options, surrogate, self.save_dtype, self._is_recurrent, backend)

    def extra_repr(self) -> str:
        return ", ".join([*(f"{name}={value!r}" for name, value in self.options.items()), f"backend={self.backend!r}"])


class InSnnTorchsWords(NeuronLayer):
    """Layers of neurons that take `learn_<parameter>` and `reset_mechanism`, as snnTorch's do."""

    def __init__(self, *arguments: Any, **named: Any):
        flags = [name for name in self.definition.parameters if named.pop(f"learn_{name}", False)]
        if "learn" in named or "reset" in named:
            wrong = "learn" if "learn" in named else "reset"
            remedy = "learn_<parameter>=True" if wrong == "learn" else _INSTEAD[wrong]
            raise TypeError(f"{type(self).__name__}: got an unexpected argument {wrong!r}; write {remedy}")
        if "reset_mechanism" in named:
            mechanism, known = named.pop("reset_mechanism"), self.definition.options["reset"]
            if mechanism not in known:
                raise ValueError(f"reset_mechanism: expected one of {', '.join(known)}, got {mechanism!r}")
            named["reset"] = mechanism
        super().__init__(*arguments, learn=flags, **named)


def _is_one(factor: Tensor) -> bool:
    """Return whether a factor is known to be 1; it is not read where that would stall a device or break a graph."""
    if factor.requires_grad or factor.device.type != "cpu" or torch.compiler.is_compiling() or is_transformed():
        return False
    return bool((factor == 1).all())


class Alpha(InSnnTorchsWords):
    definition = NEURONS["alpha"]


class Lapicque(InSnnTorchsWords):
    definition = NEURONS["lapicque"]


class StateLeaky(InSnnTorchsWords):
    definition = NEURONS["state_leaky"]


class Synaptic(InSnnTorchsWords):
    definition = NEURONS["synaptic"]


class CobaLIF(NeuronLayer):
    definition = NEURONS["coba_lif"]


class IAF(NeuronLayer):
    definition = NEURONS["iaf"]


class Izhikevich(NeuronLayer):
    definition = NEURONS["izhikevich"]


class LI(NeuronLayer):
    definition = NEURONS["li"]


class LIBox(NeuronLayer):
    definition = NEURONS["li_box"]


class LIF(NeuronLayer):
    definition = NEURONS["lif"]


class LIFAdEx(NeuronLayer):
    definition = NEURONS["lif_adex"]


class LIFAdExRefrac(NeuronLayer):
    definition = NEURONS["lif_adex_refrac"]


class LIFBox(NeuronLayer):
    definition = NEURONS["lif_box"]


class LIFEx(NeuronLayer):
    definition = NEURONS["lif_ex"]


class LIFRefrac(NeuronLayer):
    definition = NEURONS["lif_refrac"]


class LSNN(NeuronLayer):
    definition = NEURONS["lsnn"]


class ParametricLIF(NeuronLayer):
    definition = NEURONS["parametric_lif"]


class Leaky(InSnnTorchsWords):
    """Also takes a value for its spikes.

    Args:
        graded_spikes_factor: the value of a spike, a number or a tensor as a parameter's.
        learn_graded_spikes_factor: make it trainable.

    Example:
        >>> lif = Leaky(beta=0.9)
        >>> spikes, v = lif(torch.full((4, 1, 1), 0.6))
        >>> spikes.flatten()
        tensor([0., 1., 0., 1.])
    """

    definition = NEURONS["leaky"]
    graded_spikes_factor: float | Tensor

    def __init__(
        self,
        *arguments: Any,
        graded_spikes_factor: float | Tensor = 1.0,
        learn_graded_spikes_factor: bool = False,
        **named: Any,
    ):
        super().__init__(*arguments, **named)
        is_plain = type(graded_spikes_factor) in (int, float) and graded_spikes_factor == 1
        if is_plain and not learn_graded_spikes_factor:
            # A number, which is known to be 1 without being read from a device.
            self.graded_spikes_factor = 1.0
        else:
            self._keep("graded_spikes_factor", graded_spikes_factor, learn_graded_spikes_factor)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *others: Any) -> None:
        saved = state_dict.get(f"{prefix}graded_spikes_factor")
        if isinstance(saved, Tensor) and not isinstance(self.graded_spikes_factor, Tensor):
            del self.graded_spikes_factor
            place = next(chain(self.parameters(), self.buffers())).device
            self.register_buffer("graded_spikes_factor", torch.empty_like(saved, device=place))
        super()._load_from_state_dict(state_dict, prefix, *others)

    def forward(self, x: Tensor, state: sequences.State | None = None) -> tuple[Tensor, sequences.State]:
        spikes, v = super().forward(x, state)
        factor = self.graded_spikes_factor
        if isinstance(factor, Tensor):
            return (spikes if _is_one(factor) else spikes * factor.to(spikes.dtype)), v
        return (spikes if factor == 1 else spikes * factor), v


def neuron(
    *,
    states: Mapping[str, float | str],
    parameters: Mapping[str, float | None] | None = None,
    options: Mapping[str, tuple] | None = None,
    prepare: Callable | None = None,
) -> Callable[[Callable], type[NeuronLayer]]:
    """Make a layer of a neuron of one's own, from the update of one time step.

    The update takes the input x and the states, tensors of one shape, the parameters and options by keyword, and
    `spike`. It is written in arithmetic and torch's elementwise functions and returns the output and the new states, in
    order. `spike(u)` is 1 where u > 0 and else 0, with the surrogate's gradient; below hardness 1 it is smooth in the
    output, and hard in the states. `spike.hard(u)` is hard in both, for a reset that comes before the output. Its
    kernels for CPU and GPU, and their gradients, are generated.

    Args:
        states: the value of each state at rest, a number or the name of a parameter, in the order of the update.
        parameters: their defaults; None where one has to be given.
        options: values that Python's control flow depends on, the default first.
        prepare: maps the parameters, by keyword, to a dict of those of the update, once per sequence: for what need not
            be computed at every time step.

    Returns:
        A decorator that turns the update into a subclass of `NeuronLayer`.

    Raises:
        ValueError: if a name is taken.
        ValueError: in the forward pass with another backend than "torch", if the update contains what kernels cannot
            compute, such as a matrix product, a random number or control flow on a tensor; it names the line.

    Example:
        >>> @neuron(states={"v": 0.0, "a": 0.0}, parameters={"beta": 0.9, "rho": 0.97, "threshold": 1.0})
        ... def adaptive_lif(x, v, a, *, beta, rho, threshold, spike):
        ...     v = beta * v + x
        ...     s = spike(v - threshold - a)
        ...     return s, v - s * threshold, rho * a + s
        >>> layer = adaptive_lif(learn=("rho",), surrogate="htaf", rho=torch.full((64,), 0.95))
        >>> spikes, state = layer(torch.ones(10, 2, 64))
        >>> spikes[:, 0, 0].detach(), state.a.shape
        (tensor([0., 1., 0., 1., 0., 1., 0., 1., 0., 0.]), torch.Size([2, 64]))
    """

    def decorate(update: Callable) -> type[NeuronLayer]:
        held = dict(states), dict(parameters or {}), {name: tuple(values) for name, values in (options or {}).items()}
        spikes = _check_update(update, prepare, *held)
        made = Neuron(update.__name__, update, *held, prepare=prepare, spikes=spikes)
        check_names(made)
        for name in (*made.parameters, *made.options):
            if hasattr(NeuronLayer, name) or name in _SHARED:
                raise ValueError(f"{update.__name__}: expected another name than {name!r}, which layers have")
        object.__setattr__(made, "key", _key(made))
        NEURONS[made.key] = made
        sequences.make_state_type(made)
        return type(update.__name__, (NeuronLayer,), {"definition": made, "__module__": update.__module__ or __name__})

    return decorate


def _key(neuron: Neuron) -> str:
    """Return what operators find a user's neuron by, the same in every process that defines it alike."""
    code = fingerprint(*filter(None, (neuron.update, neuron.prepare)))
    held = neuron.states, neuron.parameters, neuron.options
    key = f"{neuron.name}_{hashlib.sha256(f'{code}{held}'.encode()).hexdigest()[:16]}"
    alike = sum(other.partition("#")[0] == key for other in NEURONS)
    return f"{key}#{alike}" if alike else key


def _check_update(update: Any, prepare: Callable | None, states: dict, parameters: dict, options: dict) -> bool:
    """Return whether an update takes `spike`; raise TypeError or ValueError unless it takes what is declared."""
    if not isinstance(update, FunctionType) or not update.__name__.isidentifier():
        raise TypeError(f"update: expected a function with a name, got {update!r}")
    title, taken = update.__name__, inspect.signature(update).parameters.values()
    positional = [p.name for p in taken if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if not states or positional[1:] != list(states):
        expected = f"the input and then the states, {', '.join(states) or 'at least one'}"
        raise ValueError(f"{title}: expected an update of {expected}, got {', '.join(positional)}")
    for name, value in states.items():
        if isinstance(value, str) and value not in parameters:
            raise ValueError(f"states: expected for {name} a number or the name of a parameter, got {value!r}")
    for name, values in options.items():
        if not values:
            raise ValueError(f"options: expected for {name} its values, the default first, got none")
    keywords = {p.name for p in taken if p.kind is p.KEYWORD_ONLY}
    declared = {*options, *(() if prepare else parameters)}
    missing, unknown = declared - keywords, keywords - declared - {"spike"} - (keywords if prepare else set())
    if (missing and not any(p.kind is p.VAR_KEYWORD for p in taken)) or unknown:
        wanted = ", ".join(sorted({*declared, "spike"}))
        raise ValueError(f"{title}: expected an update with the keywords {wanted}, got {', '.join(sorted(keywords))}")
    return "spike" in keywords
