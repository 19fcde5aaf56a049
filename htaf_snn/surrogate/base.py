"""What all surrogates share: a formula, checked parameters and a hardness."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection
from dataclasses import Field, dataclass, field, fields
from numbers import Real
from typing import Any, ClassVar, dataclass_transform

import torch
from torch import Tensor, nn

from .._checks import check_floating, describe
from .elementwise import step
from .formula import Formula


def _default(parameter: Field) -> float:
    if not isinstance(parameter.default, (bool, int, float)):
        raise TypeError(f"{parameter.name}: expected a field with a number as its default, got {parameter.default!r}")
    return parameter.default


class _Initialised(nn.Module):
    """A module whose `__init__` a dataclass may write."""

    _annealed: dict[str, Tensor]

    def __new__(cls, *args, **kwargs):
        module = super().__new__(cls)
        nn.Module.__init__(module)
        module._annealed = {}  # the tensors of `Surrogate.make_variable`
        return module


@dataclass_transform(kw_only_default=False)
@dataclass(eq=False, repr=False)
class Surrogate(_Initialised):
    """A smooth stand-in for the step x > 0, its derivative, and how hard it is; the base class of all surrogates.

    The forward pass is (1 - hardness) * h(x) + hardness * H(x), with the formula's primitive h and the Heaviside step
    H; the backward pass is h'(x) at any hardness. Both are the same in training and in eval mode. A subclass declares
    its formula and the defaults of its parameters: `class ATan(Surrogate, formula=...): alpha: float = 2.0`.

    Args:
        learn: names of parameters to train, for formulas that have `parameter_gradients`, such as HTAF's. A parameter p
            is stored as `log_p`, so that it stays positive, and receives the gradient of the smooth step at any
            hardness.
        hardness: from 0, the smooth step, to 1, the step with a surrogate gradient.

    Parameters and hardness are attributes, which may be set at any time: `surrogate.alpha = 3.0`. They are part of
    `state_dict`.

    The neurons of this package reset hard at any hardness. Those of other libraries reset by the surrogate's output,
    that is softly below hardness 1; while `htaf_snn.register()` is in force, snnTorch's reset hard too.

    Shape:
        Any floating-point tensor; the output has its shape and dtype. At hardness 1 it is exactly 0 or 1.

    Raises:
        TypeError: if a parameter is not a number, or there are too many; in the forward pass if the input is not
            floating-point.
        ValueError: if a parameter is not positive and finite, the hardness is not within [0, 1], or a name in `learn`
            is no learnable parameter.

    Example:
        >>> from htaf_snn.surrogate import ATan
        >>> surrogate = ATan(alpha=2.0)
        >>> surrogate(torch.tensor([-1.0, 0.0, 1.0]))
        tensor([0., 0., 1.])
        >>> surrogate.hardness = 0.0
        >>> surrogate(torch.tensor([-1.0, 0.0, 1.0]))
        tensor([0.0981, 0.5000, 0.9019])
    """

    formula: ClassVar[Formula | None] = None
    _defaults: ClassVar[dict[str, float]] = {}

    learn: Collection[str] = field(default=(), kw_only=True)
    hardness: float = field(default=1.0, kw_only=True)

    def __init_subclass__(cls, formula: Formula | None = None, **kwargs):
        super().__init_subclass__(**kwargs)
        dataclass(eq=False, repr=False)(cls)
        if formula is None:
            return
        cls.formula = formula
        cls._defaults = {f.name: _default(f) for f in fields(cls) if f.name not in ("learn", "hardness")}
        if tuple(cls._defaults) != formula.parameters:
            expected = ", ".join(f"{name}: float = …" for name in formula.parameters)
            raise TypeError(f"{cls.__name__}: expected the fields {expected}, got {', '.join(cls._defaults) or 'none'}")
        for name in cls._defaults:
            if name in cls.__dict__:
                delattr(cls, name)  # it would hide a buffer of that name

    def __setattr__(self, name: str, value) -> None:
        if name == "hardness" or name in self._defaults:
            self._set(name, value)
        else:
            if name == "learn":
                value = self._checked_names(value)
            elif isinstance(value, float) and not hasattr(self, name) and name not in {f.name for f in fields(self)}:
                # A misspelt parameter.
                expected = ", ".join(("hardness", *self._defaults))
                raise AttributeError(f"{type(self).__name__}: expected one of {expected}, got {name!r}")
            super().__setattr__(name, value)

    def __getattr__(self, name: str):
        learned = self.__dict__.get("_parameters", {}).get(f"log_{name}")
        return super().__getattr__(name) if learned is None else learned.exp()

    @classmethod
    def _as_function(cls) -> str:
        """Return what to write where the class was called with membrane potentials."""
        return f"; a neuron takes an instance, spike_grad={cls.__name__}(), and a tensor {cls.__name__}()(x)"

    def _checked_names(self, learn: Collection[str]) -> tuple[str, ...]:
        if "learn" in self.__dict__:
            raise AttributeError(f"learn: cannot be changed; make a new {type(self).__name__}")
        known = self._learnable()
        if isinstance(learn, str) or not isinstance(learn, Collection) or not set(learn) <= set(known):
            expected = (
                f"names of {', '.join(known)}, as in [{known[0]!r}]" if known else "none, as nothing can be learned"
            )
            raise ValueError(f"learn: expected {expected}, got {learn!r}")
        return tuple(dict.fromkeys(learn))

    @classmethod
    def _learnable(cls) -> tuple[str, ...]:
        has_gradients = cls.formula is not None and cls.formula.parameter_gradients is not None
        return tuple(k for k, v in cls._defaults.items() if not isinstance(v, bool)) if has_gradients else ()

    def _set(self, name: str, value) -> None:
        if isinstance(value, Tensor) and (name not in self._learnable()):
            if value.ndim:
                raise TypeError(f"{name}: expected a number, got {describe(value)}{self._as_function()}")
            value = value.item()
        if name in self.learn:
            self._set_learned(name, value)
        elif isinstance(value, Tensor):
            self._check_tensor(name, value)
            self.__dict__.pop(name, None)
            self._annealed.pop(name, None)
            self.register_buffer(name, value.detach().clone())
        else:
            value = self._checked_hardness(value) if name == "hardness" else self._checked(name, value)
            self._buffers.pop(name, None)
            self.__dict__[name] = value
            if name in self._annealed:
                self._annealed[name].fill_(value)

    def _set_learned(self, name: str, value: float | Tensor) -> None:
        if isinstance(value, Tensor):
            self._check_tensor(name, value.detach())
        start = value.detach() if isinstance(value, Tensor) else torch.tensor(self._checked(name, value))
        existing = self._parameters.get(f"log_{name}")
        if existing is None:
            self.register_parameter(f"log_{name}", nn.Parameter(start.log()))
        elif torch.broadcast_shapes(start.shape, existing.shape) != existing.shape:
            raise ValueError(f"{name}: expected a shape that fits {tuple(existing.shape)}, got {tuple(start.shape)}")
        else:
            with torch.no_grad():
                existing.copy_(start.log())

    def _check_tensor(self, name: str, value: Tensor) -> None:
        if not value.is_floating_point():
            raise TypeError(f"{name}: expected a number or a floating-point tensor, got {value.dtype}")
        if value.requires_grad and name not in self.learn:
            raise ValueError(f"{name}: expected a tensor without gradient, got a trainable one; pass learn=[{name!r}]")
        try:
            self._check_positive(name, value)
        except ValueError as error:
            raise ValueError(f"{error}{self._as_function() if value.ndim > 1 else ''}") from None

    @classmethod
    def _checked_hardness(cls, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) <= 1:
            raise ValueError(f"hardness: expected a number within [0, 1], got {value!r}")
        return float(value)

    @classmethod
    def _checked(cls, name: str, value: Any) -> float:
        """Return a parameter that is a number, or a bool where the default is one; else raise."""
        if isinstance(cls._defaults[name], bool):
            if not isinstance(value, bool):
                raise TypeError(f"{name}: expected True or False, got {value!r}")
            return value
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"{name}: expected a number or a floating-point tensor, got {value!r}")
        # The compiler traces a comparison with infinity, but not math.isinf.
        if not float(value) > 0 or (value == math.inf and not math.isinf(cls._defaults[name])):
            raise ValueError(f"{name}: expected a positive finite number, got {value!r}")
        return float(value)

    @classmethod
    def _check_positive(cls, name: str, value: Tensor) -> None:
        """Raise ValueError unless all of a parameter tensor is positive and, where its default is, finite.

        On an accelerator and under compilation or vmap the values are not looked at: it would stall the device,
        break the graph, or is impossible.
        """
        if value.device.type != "cpu" or torch.compiler.is_compiling():
            return
        value = value.detach()
        try:
            valid = bool(((value > 0) & (value.isfinite() | math.isinf(cls._defaults[name]))).all())
        except RuntimeError:
            return
        if not valid:
            raise ValueError(f"{name}: expected positive finite values, got {value.flatten()[:8].tolist()}")

    def values(self) -> dict[str, float | Tensor]:
        """Return the parameters by name, in the formula's order; tensors of learned ones carry their gradient."""
        return {name: self._value(name) for name in self._defaults}

    def _value(self, name: str) -> float | Tensor:
        """Return a parameter or the hardness for a computation: under the compiler an annealed one is a tensor."""
        compiled = torch.compiler.is_compiling() and not torch.compiler.is_exporting()  # an exported graph is fixed
        is_input = compiled and name in self._annealed
        return self._annealed[name] if is_input else getattr(self, name)

    def numbers(self) -> dict[str, float | Tensor]:
        """Return the hardness and the parameters that are numbers; under the compiler annealed ones are tensors."""
        return {name: self._value(name) for name in ("hardness", *self._defaults) if name in self.__dict__}

    def in_kernels(self) -> tuple[Formula, dict[str, float | Tensor]] | None:
        """Return the formula that kernels evaluate for the surrogate, with its numbers; None without one."""
        return None if self.formula is None else (self.formula, self.numbers())

    def is_hard(self) -> bool:
        """Return whether the hardness is 1; False under the compiler if it is annealed, as it may then be any."""
        hardness = self._value("hardness")
        return not isinstance(hardness, Tensor) and hardness == 1

    def make_variable(self, name: str) -> None:
        """Make the hardness or a parameter an input of compiled graphs, so that setting it does not recompile them.

        Args:
            name: "hardness", or a parameter that is a number.

        Raises:
            ValueError: if there is none of that name, or it is a tensor.
        """
        if name not in self.numbers():
            raise ValueError(f"name: expected one of {', '.join(self.numbers())}, got {name!r}")
        self._annealed.setdefault(name, torch.tensor(float(getattr(self, name)), dtype=torch.float64, device="cpu"))

    def get_extra_state(self) -> Tensor:
        """Return the formula's name, the hardness and the parameters that are numbers, as JSON in bytes."""
        state = json.dumps({"surrogate": self.formula.name if self.formula else None, **self.numbers()}).encode()
        # Padded, as checkpoints expect tensors of one size whatever the numbers are.
        return torch.tensor(list(state.ljust(1024)), dtype=torch.uint8, device="cpu")

    def set_extra_state(self, state: Tensor) -> None:
        """Take over what `get_extra_state` gave.

        Args:
            state: of a surrogate of the same formula.

        Raises:
            ValueError: if it is another's.
        """
        numbers = json.loads(bytes(state.tolist()))
        own = self.formula.name if self.formula else None
        name = numbers.pop("surrogate")
        if name != own:
            raise ValueError(
                f"state_dict: expected the numbers of the surrogate {own!r}, got those of {name!r}; to keep the "
                "model's, leave out the key that ends in _extra_state and load with strict=False"
            )
        for name, value in numbers.items():
            if name in self.__dict__:
                setattr(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        return self._at(self._value("hardness"), x, {})

    def at_hardness(self, hardness: float, x: Tensor, /, **parameters: float | Tensor) -> Tensor:
        """Return what the surrogate gives at another hardness than its own.

        Args:
            hardness: within [0, 1].
            x: floating-point tensor of any shape.
            **parameters: values in place of the surrogate's; numbers, or tensors that broadcast to x.

        Returns:
            Tensor of the shape and dtype of x, with the gradient h'(x).

        Raises:
            TypeError, ValueError: as `functional.spike`; ValueError if the hardness is not within [0, 1].
        """
        return self._at(self._checked_hardness(hardness), x, parameters)

    def _at(self, hardness: float | Tensor, x: Tensor, parameters: dict[str, float | Tensor]) -> Tensor:
        check_floating("x", x)
        values = self.values()
        for name, value in parameters.items():
            check_parameter(self, name, value, x)
        for name, value in values.items():
            if isinstance(value, Tensor) and name not in (*self._annealed, *parameters):
                check_parameter(self, name, value, x)
        assert self.formula is not None  # `Foreign`, which has none, overrides this
        return step(x, self.formula, hardness, *{**values, **parameters}.values())

    def extra_repr(self) -> str:
        values = {name: v.tolist() if isinstance(v, Tensor) else v for name, v in self._shown().items()}
        return ", ".join(f"{name}={value!r}" for name, value in values.items())

    def _shown(self) -> dict:
        shown = {name: v for name, v in self.values().items() if v is not False}
        return {**shown, **({"learn": self.learn} if self.learn else {}), "hardness": self.hardness}


def check_parameter(surrogate: Surrogate | type[Surrogate], name: str, value: float | Tensor, x: Tensor) -> None:
    """Raise TypeError or ValueError unless a value can be a surrogate's parameter for x."""
    owner = surrogate.formula.name if surrogate.formula else "a callable"
    if name not in surrogate._defaults:
        expected = ", ".join(surrogate._defaults)
        raise ValueError(f"{owner} has no parameter {name!r}; expected one of: {expected}")
    if not isinstance(value, Tensor) or isinstance(surrogate._defaults[name], bool):
        surrogate._checked(name, value)
        return
    check_floating(name, value)
    try:
        fits = torch.broadcast_shapes(value.shape, x.shape) == x.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(f"{name}: expected a shape that broadcasts to {tuple(x.shape)}, got {describe(value)}")
    if value.requires_grad and name not in surrogate._learnable():
        raise ValueError(f"{name}: the parameters of {owner!r} have no gradient; expected a detached tensor")
    surrogate._check_positive(name, value)


class Foreign(Surrogate):
    """A callable of another origin as a surrogate, such as another library's, whose output is checked.

    Its hardness is 1, as nothing is known of a smooth step.

    Args:
        function: maps membrane potential minus threshold to spikes of the same shape and dtype, with a gradient.
        name: of another library's surrogate, which may return another floating-point dtype; else empty.
        learn, hardness: accepted for uniformity, () and 1 alone.

    Shape:
        Any floating-point tensor; the output has its shape and dtype.

    Raises:
        TypeError: in the forward pass, if the callable gives no tensor of the shape and dtype of x.
        ValueError: if the hardness is set to another value than 1.

    Example:
        >>> import snntorch
        >>> Foreign(snntorch.surrogate.atan())(torch.tensor([-1.0, 1.0]))
        tensor([0., 1.])
    """

    function: Callable[[Tensor], Tensor]
    name: str = ""

    @classmethod
    def _checked_hardness(cls, value) -> float:
        if value != 1:
            raise ValueError(f"hardness: expected 1 for a callable, of which no smooth step is known, got {value!r}")
        return 1.0

    def _at(self, hardness: float | Tensor, x: Tensor, parameters: dict[str, float | Tensor]) -> Tensor:
        check_floating("x", x)
        if parameters:
            raise ValueError(f"parameters: expected none beside a callable, got {', '.join(parameters)}")
        spikes = self.function(x)
        if self.name and isinstance(spikes, Tensor) and spikes.is_floating_point():
            spikes = spikes.to(x.dtype)  # snnTorch's and sinabs' are float32 for any input
        if not isinstance(spikes, Tensor) or spikes.shape != x.shape or spikes.dtype != x.dtype:
            got = describe(spikes) if isinstance(spikes, Tensor) else type(spikes).__name__
            remedy = "a factory of surrogates has to be called once, as in atan()"
            raise TypeError(f"surrogate: expected a callable from {describe(x)} to spikes like it, got {got}; {remedy}")
        return spikes

    def __getstate__(self) -> dict:
        """Leave out a function that can be made again, as most of the libraries' cannot be pickled."""
        return {k: v for k, v in self.__dict__.items() if k != "function" or "_origin" not in self.__dict__}

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        if "_origin" in state and "function" not in {**state, **self._modules}:
            make, arguments = state["_origin"]
            self.function = make(*arguments)

    def extra_repr(self) -> str:
        return self.name or ("" if isinstance(self.function, nn.Module) else repr(self.function))
