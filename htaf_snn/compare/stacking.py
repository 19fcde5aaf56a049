"""The seeds of one configuration trained as one network: each layer and each step of all of them in one operation."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import fields

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.functional import cross_entropy

from .. import training
from ..configuration import Recipe
from . import trial
from .measures import Network
from .trial import Prepared, Trial

_HEEDED = ("epochs", "lr", "schedule", "warmup", "anneal", "alpha_end")


class StackingError(ValueError):
    """The networks cannot be trained as one, or not to the end."""


def check_all(trials: Sequence[Trial]) -> None:
    """Raise ValueError if the seeds of a study cannot be trained as one network."""
    try:
        for one in trials:
            check(one)
    except StackingError as error:
        raise ValueError(f"stack_seeds: {error}") from None


def run(trials: Sequence[Trial]) -> list[dict]:
    """`trial.run` of trials that differ in the seed alone; equal to separate runs within rounding.

    Returns:
        One result per trial, each with an equal share of the time.

    Raises:
        StackingError: if the networks are not spiking ones, have BatchNorm or neurons that learn, are trained by
            another recipe than plain Adam, the seeds' parts of the data have different sizes, or a gradient is not
            finite; separate runs then report which seed's.
    """
    start = time.perf_counter()
    check(trials[0])
    stacked = [trial.prepare(one) for one in trials]
    if any(True for neuron in stacked[0].model.neurons for _ in neuron.parameters()):
        neuron = f"{trials[0].surrogate} in {trials[0].run.neuron}"
        raise StackingError(f"surrogate, neuron: expected them without parameters that learn, got {neuron}")
    sizes = [len(prepared.loaders[0].dataset) for prepared in stacked]
    if len(set(sizes)) > 1:
        raise StackingError(f"seeds: expected training parts of one size, got {sizes}")
    curves = _train(stacked)
    results = [trial.finish(prepared, lines) for prepared, lines in zip(stacked, curves, strict=True)]
    share = (time.perf_counter() - start) / len(trials)
    device = next(stacked[0].model.parameters()).device
    return [
        {**result, "times": trial.times(prepared.loaders[0], share, lines, device)}
        for prepared, result, lines in zip(stacked, results, curves, strict=True)
    ]


def check(first: Trial) -> None:
    """Raise StackingError for a network or a recipe that a stack does not heed."""
    recipe = first.run
    if recipe.model != "mlp":
        raise StackingError(f"model: expected mlp, got {recipe.model}")
    if recipe.norm == "batch":
        raise StackingError("norm: expected none, as BatchNorm's statistics are not stacked, got batch")
    if recipe.anneal == "width":
        raise StackingError("anneal: expected no width, which follows each network's own potentials, got width")
    for field in fields(Recipe):
        value = getattr(recipe, field.name)
        if field.name not in _HEEDED and value != field.default:
            raise StackingError(f"{field.name}: expected {field.default!r} in a stack of seeds, got {value!r}")


def _train(trials: Sequence[Prepared]) -> list[list[dict]]:
    """Train the networks in place; return each one's metrics as `training.fit` does, with a share of the time."""
    recipe, nets = trials[0].recipe, [prepared.model for prepared in trials]
    weights, _ = stack_module_state([*nets])
    optimizer = torch.optim.Adam(list(weights.values()), lr=recipe.lr, fused=True)

    def before_step(number: int) -> None:
        for prepared in trials:
            prepared.before_step(number, optimizer)

    curves: list[list[dict]] = [[] for _ in nets]
    for epoch in range(recipe.epochs):
        start = time.perf_counter()
        metrics = _epoch(trials, weights, optimizer, epoch, before_step)
        for number, (prepared, lines) in enumerate(zip(trials, curves, strict=True)):
            with torch.no_grad():
                for name, parameter in prepared.model.named_parameters():
                    parameter.copy_(weights[name][number])
            validated = training.loop.validate(prepared.model, *prepared.loaders[:2])
            lines.append({"epoch": epoch + 1, **metrics[number], **validated})
        seconds = (time.perf_counter() - start) / len(trials)
        for lines in curves:
            lines[-1]["seconds"] = seconds
    return curves


def _epoch(
    trials: Sequence[Prepared],
    weights: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    epoch: int,
    before_step: Callable[[int], None],
) -> list[dict]:
    loaders, device = [prepared.loaders[0] for prepared in trials], next(iter(weights.values())).device
    for loader in loaders:
        loader.sampler.set_epoch(epoch)
    losses = correct = rates = torch.zeros(len(loaders), dtype=torch.float64, device=device)
    samples = 0
    for step, batches in enumerate(zip(*loaders, strict=True)):
        before_step(epoch * len(loaders[0]) + step)
        frames = torch.stack([frames for frames, _ in batches], 1).to(device)
        labels = torch.stack([labels for _, labels in batches]).to(device)
        scores, spikes = _scores(trials[0].model, weights, frames)
        loss = cross_entropy(scores.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape).mean(1)
        optimizer.zero_grad()
        # Summed, so that Adam sees the gradient that each network would have alone.
        loss.sum().backward()
        gradients = [value.grad for value in weights.values() if value.grad is not None]
        if not torch.nn.utils.get_total_norm(gradients).isfinite():
            raise StackingError(f"the gradient is not finite in epoch {epoch + 1}")
        optimizer.step()
        size = labels.shape[1]
        losses, samples = losses + loss.detach().double() * size, samples + size
        correct, rates = correct + (scores.argmax(2) == labels).sum(1), rates + spikes.double() * size
    return [
        {
            "train_loss": losses[number].item() / samples,
            "train_accuracy": correct[number].item() / samples,
            "spike_rate": (rates[:, number] / samples).tolist(),
        }
        for number in range(len(loaders))
    ]


def _scores(net: Network, weights: dict[str, Tensor], frames: Tensor) -> tuple[Tensor, Tensor]:
    """Return class scores (S, B, n_classes) of frames (T, S, B, C, H, W), and the neurons' mean outputs (layers, S)."""
    steps, seeds, batch = frames.shape[:3]
    x, rates = frames, []
    for number, (layer, neuron) in enumerate(zip(net.layers, net.neurons, strict=True)):
        currents = _over_seeds(layer, weights, f"layers.{number}.", x.transpose(0, 1).flatten(1, 2))
        currents = currents.unflatten(1, (steps, batch)).transpose(0, 1)
        x = neuron(currents.flatten(1, 2))[0].unflatten(1, (seeds, batch))
        rates.append(x.detach().transpose(0, 1).flatten(1).mean(1))
    return _over_seeds(net.get_submodule("readout"), weights, "readout.", x.mean(0)), torch.stack(rates)


def _over_seeds(module: nn.Module, weights: dict[str, Tensor], prefix: str, x: Tensor) -> Tensor:
    """Apply the module over the first dimension of x, with each seed's weights."""
    own = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    return vmap(lambda values, inputs: functional_call(module, values, (inputs,)))(own, x)
