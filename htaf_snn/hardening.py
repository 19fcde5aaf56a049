"""From the smooth network that is trained to the hard one that is used: SNN, BNN, DHN and ICBM alike."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, islice
from numbers import Integral, Real
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ._checks import describe
from .nn import BinaryActivation
from .nn._batches import Shards, apply, device_of, inputs_of, loss_and_accuracy
from .nn._modes import in_eval
from .surrogate import Surrogate

__all__ = ["Anneal", "Evaluation", "evaluate", "hard", "harden", "is_hard", "recalibrate", "smooth"]


def surrogates(model: nn.Module) -> dict[str, Surrogate]:
    """Return the surrogates of a model's neurons and activations by name, those of binary weights left out."""
    holders = [module for module in _modules(model) if not getattr(module, "surrogate_acts_on_weights", False)]
    own = {id(model), *(id(child) for holder in holders for child in holder.children())}
    return {
        name: module for name, module in model.named_modules() if isinstance(module, Surrogate) and id(module) in own
    }


def _modules(model: nn.Module) -> Iterator[nn.Module]:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a module, got {describe(model)}")
    return model.modules()


def is_hard(model: nn.Module) -> bool:
    """Return whether nothing is left to harden: every surrogate's hardness is 1, or there is none.

    Of an activation with a callable, which has no hardness, a few values are tried: they have to be 0 or 1.

    Args:
        model: any network.

    Example:
        >>> from htaf_snn import HTAF
        >>> is_hard(nn.Sequential(HTAF())), is_hard(nn.Sequential(HTAF(hardness=0.9)))
        (True, False)
    """
    callables = [
        module.surrogate
        for module in _modules(model)
        if isinstance(module, BinaryActivation) and module.surrogate.formula is None
    ]
    return all(surrogate.hardness == 1 for surrogate in surrogates(model).values()) and all(map(_is_step, callables))


@torch.no_grad()
def _is_step(surrogate: Surrogate) -> bool:
    y = surrogate(torch.linspace(-4, 4, 81, device=device_of(surrogate)))
    return bool(((y - y.round()).abs() < 1e-6).all())


def harden(model: nn.Module) -> None:
    """Set the hardness of every surrogate to 1.

    Args:
        model: changed in place.

    Example:
        >>> from htaf_snn import HTAF
        >>> surrogate = HTAF(hardness=0.0)
        >>> harden(surrogate)
        >>> surrogate.hardness
        1.0
    """
    for surrogate in surrogates(model).values():
        surrogate.hardness = 1.0


@contextmanager
def hard(model: nn.Module) -> Iterator[None]:
    """Give every surrogate hardness 1 within the block; afterwards restore each one's own, also after an error.

    The backward pass of `torch.utils.checkpoint` repeats the forward pass, so it has to lie inside the block too.

    Args:
        model: any network.

    Example:
        >>> from htaf_snn import HTAF
        >>> surrogate = HTAF(hardness=0.0)
        >>> with hard(surrogate):
        ...     surrogate(torch.zeros(1))
        tensor([0.])
        >>> surrogate(torch.zeros(1))
        tensor([0.5000])
    """
    before = [(surrogate, surrogate.hardness) for surrogate in surrogates(model).values()]
    harden(model)
    try:
        yield
    finally:
        for surrogate, hardness in before:
            surrogate.hardness = hardness


@contextmanager
def smooth(model: nn.Module) -> Iterator[None]:
    """Let activations keep the hardness that they are trained with in `eval()`, within the block.

    Of all layers only `nn.BinaryActivation` is hard in `eval()`; neurons keep their surrogate's hardness anyway. Where
    `torch.utils.checkpoint` is used, the backward pass has to lie inside the block too, as for `hard`.

    Args:
        model: any network.

    Example:
        >>> from htaf_snn.nn import BinaryActivation
        >>> activation = BinaryActivation("htaf(hardness=0.0)", levels=(0, 1)).eval()
        >>> with smooth(activation):
        ...     activation(torch.zeros(1))
        tensor([0.5000])
        >>> activation(torch.zeros(1))
        tensor([0.])
    """
    activations = [module for module in _modules(model) if isinstance(module, BinaryActivation)]
    before = [activation.smooth_in_eval for activation in activations]
    for activation in activations:
        activation.smooth_in_eval = True
    try:
        yield
    finally:
        for activation, is_smooth in zip(activations, before, strict=True):
            activation.smooth_in_eval = is_smooth


class Anneal:
    """A schedule that moves the hardness or a parameter of a network's surrogates from a start to an end.

    The hardness moves linearly, start + (end - start) * s, a parameter geometrically, start * (end / start) ** s, where
    s rises evenly from 0 to 1 over the steps. A step does not recompile a network that `torch.compile` compiles after
    the schedule is made.

    Args:
        model: its surrogates whose parameter of that name is a number are annealed; those of binary weights are not.
        parameter: "hardness", or the name of a parameter, such as "alpha" of HTAF or "t" of EDE.
        start: value before the first step, within [0, 1] for the hardness, otherwise > 0; None is each surrogate's own
            value when the schedule is made.
        end: value after the last step, in the same range.
        steps: calls of `step` until the end, >= 1.
        ends: other ends for some surrogates, by the name of the layer that holds them, without `torch.compile`'s
            "_orig_mod".

    Attributes:
        done: steps taken so far, from 0 to `steps`.

    Raises:
        ValueError: if a value is out of range, a name in `ends` is unknown, or there is no surrogate to anneal.
        TypeError: if the model is no module, or `ends` no mapping.

    Example:
        >>> from htaf_snn.nn import BinaryActivation
        >>> net = nn.Sequential(nn.Linear(2, 2), BinaryActivation("htaf"))
        >>> anneal = Anneal(net, "hardness", start=0.0, end=1.0, steps=4)
        >>> for _ in range(2):
        ...     anneal.step()
        >>> net[1].surrogate.hardness
        0.5
        >>> Anneal(net, "alpha", start=1.0, end=16.0, steps=4).at(2)
        >>> net[1].surrogate.alpha
        4.0
    """

    def __init__(
        self,
        model: nn.Module,
        parameter: str = "hardness",
        start: float | None = 0.0,
        end: float = 1.0,
        *,
        steps: int,
        ends: Mapping[str, float] | None = None,
    ):
        _check_count("steps", steps, 1)
        if not (ends is None or isinstance(ends, Mapping)):
            raise TypeError(f"ends: expected a mapping from names of layers to values, got {ends!r}")
        self._surrogates = annealable(model, parameter)
        if not self._surrogates:
            raise ValueError(
                f"model: expected a surrogate of this package with the parameter {parameter!r} as a number, got "
                f"{_in_its_place(model, parameter)}"
            )
        unknown = set(ends or ()) - set(self._surrogates)
        if unknown:
            known = ", ".join(self._surrogates)
            raise ValueError(f"ends: expected names of {known}, got {', '.join(sorted(map(str, unknown)))}")
        self._starts = {
            name: float(surrogate.numbers()[parameter]) if start is None else start
            for name, surrogate in self._surrogates.items()
        }
        self._ends = {name: (ends or {}).get(name, end) for name in self._surrogates}
        for value in (*self._starts.values(), end, *self._ends.values()):
            _check_value(parameter, value)
        self._steps, self._parameter = steps, parameter
        for surrogate in self._surrogates.values():
            surrogate.make_variable(parameter)
        self.at(0)

    def step(self) -> None:
        """Advance one step; after the last, values stay fixed."""
        self.at(self.done + 1)

    def at(self, done: int) -> None:
        """Set the values after so many steps, >= 0; beyond the last step, those at the end."""
        _check_count("done", done, 0)
        self.done = min(int(done), self._steps)
        part = self.done / self._steps
        for name, surrogate in self._surrogates.items():
            setattr(surrogate, self._parameter, self._value(self._starts[name], self._ends[name], part))

    def _value(self, start: float, end: float, part: float) -> float:
        if part == 1:
            return end
        if self._parameter == "hardness":
            return start + (end - start) * part
        return start * (end / start) ** part

    def state_dict(self) -> dict[str, int]:
        """Return what `load_state_dict` takes: {"done": steps}."""
        return {"done": self.done}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Continue after the steps at which the state was saved."""
        if "done" not in state:
            raise ValueError(f"state: expected {{'done': steps}}, got {state!r}")
        self.at(state["done"])


def annealable(model: nn.Module, parameter: str) -> dict[str, Surrogate]:
    """Return the surrogates with a number of that name that can be changed, by the layer that holds them."""
    return {
        _holder(name): surrogate
        for name, surrogate in surrogates(model).items()
        if surrogate.formula is not None and not isinstance(surrogate.numbers().get(parameter, False), bool)
    }


def _holder(name: str) -> str:
    """Return the name of the layer that a surrogate of this name belongs to; its own, unless it is a layer's."""
    name = ".".join(part for part in name.split(".") if part != "_orig_mod")  # of `torch.compile`
    holder, _, own = name.rpartition(".")
    return holder if own in ("surrogate", "spike_grad") else name


def _check_count(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name}: expected an integer >= {least}, got {value!r}")


def _in_its_place(model: nn.Module, parameter: str) -> str:
    own = surrogates(model).values()
    if any(parameter in surrogate.learn for surrogate in own):
        return "a learned one"
    if any(isinstance(getattr(surrogate, parameter, None), Tensor) for surrogate in own):
        return "a tensor"
    libraries = {type(module).__module__.partition(".")[0] for module in model.modules()}
    if libraries & {"snntorch", "norse"}:
        return "none; for a network of snnTorch or Norse, pass htaf_snn.fuse(network)"
    return "none"


def _check_value(parameter: str, value: object) -> None:
    number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    if parameter == "hardness" and not 0 <= number <= 1:
        raise ValueError(f"start, end, ends: expected hardnesses within [0, 1], got {value!r}")
    if parameter != "hardness" and not 0 < number < math.inf:
        raise ValueError(f"start, end, ends: expected positive finite numbers for {parameter!r}, got {value!r}")


class Evaluation(NamedTuple):
    """The result of `evaluate`.

    Attributes:
        hard: accuracy of the hard network, from 0 to 1.
        smooth: accuracy of the network with the hardness that it is trained with.
        gap: the hardening gap, smooth - hard.
        loss: mean cross-entropy of the hard network, in nats.

    Example:
        >>> Evaluation(hard=0.5, smooth=0.75, gap=0.25, loss=1.0).gap
        0.25
    """

    hard: float
    smooth: float
    gap: float
    loss: float


def evaluate(
    model: nn.Module,
    train_loader: Iterable,
    loader: Iterable,
    *,
    keep_hard_statistics: bool = False,
    processes: Shards | None = None,
) -> Evaluation:
    """Evaluate a classifier hard, and as smooth as it is trained: the one definition of the hardening gap.

    The statistics of BatchNorm are measured on the training data for each of the two, and are restored, like all modes
    and hardnesses. A network whose surrogates are all hard is evaluated once, with the statistics that it has; its gap
    is 0.

    Args:
        model: as in `training.evaluate`.
        train_loader: batches of the training data, to measure the statistics on.
        loader: the data to evaluate on. Both are gone through twice, once if the network is hard.
        keep_hard_statistics: leave the statistics of the hard network in the model.
        processes: as in `training.evaluate`.

    Returns:
        An `Evaluation`.

    Raises:
        ValueError, TypeError, FloatingPointError: as `training.evaluate` and `recalibrate`; TypeError also for an
            iterator, such as a generator, that would have to be gone through twice.

    Example:
        >>> from htaf_snn.nn import BinaryActivation
        >>> net = nn.Sequential(nn.Linear(2, 8), BinaryActivation("htaf(hardness=0.0)"), nn.Linear(8, 2))
        >>> batches = [(torch.randn(50, 2), torch.randint(2, (50,)))]
        >>> result = evaluate(net, batches, batches)
        >>> result.gap == result.smooth - result.hard
        True
    """
    if is_hard(model):
        loss, accuracy = loss_and_accuracy(model, loader, processes)
        return Evaluation(accuracy, accuracy, 0.0, loss)
    for name, data in (("train_loader", train_loader if _norms(model) else ()), ("loader", loader)):
        if isinstance(data, Iterator):
            raise TypeError(
                f"{name}: expected batches that can be gone through twice, got {type(data).__name__}; pass a "
                f"DataLoader, or list({name})"
            )
    with _keeping_statistics(model):
        with smooth(model):
            recalibrate(model, train_loader, processes=processes)
            _, of_smooth = loss_and_accuracy(model, loader, processes)
        with hard(model):
            recalibrate(model, train_loader, processes=processes)
            loss, of_hard = loss_and_accuracy(model, loader, processes)
            hard_statistics = _statistics(model)
    if keep_hard_statistics:
        _put_statistics(hard_statistics)
    return Evaluation(of_hard, of_smooth, of_smooth - of_hard, loss)


def _norms(model: nn.Module) -> list[_BatchNorm]:
    return [module for module in _modules(model) if isinstance(module, _BatchNorm)]


def _statistics(model: nn.Module) -> list[tuple[_BatchNorm, dict[str, torch.Tensor]]]:
    return [(norm, {key: value.clone() for key, value in norm.named_buffers()}) for norm in _norms(model)]


def _put_statistics(statistics: list[tuple[_BatchNorm, dict[str, torch.Tensor]]]) -> None:
    for norm, buffers in statistics:
        for name, value in buffers.items():
            norm.get_buffer(name).copy_(value)


@contextmanager
def _keeping_statistics(model: nn.Module) -> Iterator[None]:
    before = _statistics(model)
    try:
        yield
    finally:
        _put_statistics(before)


def _samples(batch) -> int:
    """Return the number of labels, or of inputs if there are no labels."""
    x, _ = inputs_of(batch)
    return len(x if batch[1] is None else batch[1])


@torch.no_grad()
def recalibrate(model: nn.Module, loader: Iterable, batches: int = 50, *, processes: Shards | None = None) -> None:
    """Measure the statistics of BatchNorm layers again, for the network as it is in `eval()`.

    Those from training are of activations as they were trained; those of hard activations differ.

    Args:
        model: its BatchNorm layers are changed; its mode is restored. Within `smooth(model)` or `hard(model)`, the
            statistics are those of smooth or hard activations.
        loader: of (inputs, labels); batches of one sample are left out.
        batches: the largest number of batches to use; the statistics are their mean.
        processes: processes that all call this; each measures batches of its own order, and all get the mean.

    Raises:
        ValueError: if there is no batch of two samples or more; the statistics are then as before.

    Example:
        >>> from htaf_snn.nn import BinaryActivation
        >>> net = nn.Sequential(BinaryActivation(levels=(0, 1)), nn.BatchNorm1d(1))
        >>> recalibrate(net, [(torch.tensor([[1.0], [-1.0]]), None)])
        >>> net[1].running_mean
        tensor([0.5000])
    """
    norms = _norms(model)
    if not norms:
        return
    # The variance of one sample is unknown.
    usable = islice((batch for batch in loader if _samples(batch) > 1), batches)
    first = next(usable, None)
    if first is None:
        raise ValueError(
            "loader: expected a batch of two samples or more to measure BatchNorm's statistics on, got none"
        )
    momenta, before = [norm.momentum for norm in norms], _statistics(model)
    with in_eval(model):
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean of all batches
            norm.train()
        try:
            for batch in chain([first], usable):
                apply(model, *inputs_of(batch))
        except BaseException:
            _put_statistics(before)
            raise
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
    if processes is not None:
        processes.average_statistics(model)
