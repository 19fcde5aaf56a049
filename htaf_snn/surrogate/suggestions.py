"""What `suggest` returns: numbers by layer and by width, as a table and as a figure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._figures import save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIGNAL = 0.1
COHERENCE = 0.5
LIMIT = 1000.0
_IMAGES = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class MeasuredWidth:
    """The gradient of a network at one width of its surrogates, by layer from the input to the output.

    Attributes:
        name: the surrogate's specification at this width, or the stretch.
        stretch: the factor of the surrogate's argument.
        gradients: the norm of the gradient of the loss at each layer's potentials.
        signals: the share of that gradient's energy that is signal, from 0 to 1, see `suggest`.

    Example:
        >>> MeasuredWidth("htaf(alpha=0.5)", 0.5, gradients=(0.02, 1.0), signals=(0.6, 0.8)).verdict
        'passes'
    """

    name: str
    stretch: float
    gradients: tuple[float, ...]
    signals: tuple[float, ...]

    @property
    def signal(self) -> float:
        """The share of signal at the layer that has the least."""
        return min(self.signals)

    @property
    def ratio(self) -> float:
        """The norm at the first layer divided by that at the last; infinite if it is out of range."""
        first, last = self.gradients[0], self.gradients[-1]
        return 0.0 if first == 0 else first / last if math.isfinite(first) and last > 0 else math.inf

    @property
    def verdict(self) -> str:
        """Whether the gradient "vanishes" (ratio below 1/1000), "explodes" (above 1000) or "passes"."""
        return "vanishes" if self.ratio < 1 / LIMIT else "explodes" if self.ratio > LIMIT else "passes"


@dataclass(frozen=True)
class MeasuredLayer:
    """One layer of a network: its potentials, and its gradient at the present and at the suggested width.

    Attributes:
        name: of the layer that holds the surrogate.
        mean, std: of the potentials, which are membrane potential minus threshold.
        rate: the share of potentials above 0.
        within: the share of potentials at which the suggested gradient is at least half of that at the threshold.
        coherence: the share of E[h'²] that is due to each neuron's mean slope over the batch, for the suggested slopes
            h'.
        mean_square: E[h'²], likewise: the factor by which the layer changes the gradient's energy.
        gradient, suggested_gradient: the norm of the gradient at the potentials.
        signal, suggested_signal: the share of its energy that is signal.

    Example:
        >>> layer = MeasuredLayer("2", 0.0, 1.0, 0.5, 0.6, 0.77, 0.11, 0.02, 0.01, 0.26, 0.6)
        >>> layer.is_silent
        False
    """

    name: str
    mean: float
    std: float
    rate: float
    within: float
    coherence: float
    mean_square: float
    gradient: float
    suggested_gradient: float
    signal: float
    suggested_signal: float

    @property
    def is_silent(self) -> bool:
        """Whether its neurons never or always spike, so that they tell the next layer nothing."""
        return self.rate in (0, 1)


@dataclass(frozen=True)
class Suggestion:
    """A width for a network's surrogates, and the measurements that it follows from; see `suggest`.

    Attributes:
        stretch: the factor of the surrogate's argument: above 1 narrower than at present, below 1 wider.
        surrogate: the specification of the surrogate at that width, with three digits; None if no parameter of it acts
            like a stretch, it has no specification, or the layers' surrogates differ.
        gain: the factor of the suggested gradient, in each layer, at which its norm is the same at both ends of a chain
            of layers.
        has_width: whether the width makes any difference.
        layers: from the input to the output.
        present, suggested: the gradient at the two widths.
        widths: the gradient at all widths measured, from narrow to wide.

    Example:
        >>> import torch
        >>> from htaf_snn import models
        >>> from htaf_snn.surrogate import suggest
        >>> _ = torch.manual_seed(0)
        >>> net = models.DeepHeavisideNet(20, [32, 32], 2, surrogate="rectangle")
        >>> suggestion = suggest(net, (torch.rand(64, 20), torch.randint(2, (64,))))
        >>> suggestion.surrogate.startswith("rectangle(width=1."), [layer.name for layer in suggestion.layers]
        (True, ['3', '6'])
    """

    stretch: float
    surrogate: str | None
    gain: float
    has_width: bool
    layers: tuple[MeasuredLayer, ...]
    present: MeasuredWidth
    suggested: MeasuredWidth
    widths: tuple[MeasuredWidth, ...]

    @property
    def verdict(self) -> str:
        """Whether the gradient "vanishes", "explodes" or "passes" at the present width."""
        return self.present.verdict

    def as_dict(self) -> dict[str, Any]:
        """Return all values for JSON, with None for NaN and infinity."""
        return _finite({"verdict": self.verdict, "suggested_verdict": self.suggested.verdict, **asdict(self)})

    def __str__(self) -> str:
        return "\n".join([*self._sentences(), "", *self._table()])

    def _sentences(self) -> Iterator[str]:
        yield f"Present:   {_described(self.present)}"
        if self.has_width:
            yield f"Suggested: {_described(self.suggested)}"
            yield self._instruction()
        else:
            yield "The surrogate has no width: stretched by any factor, its slopes keep their proportions."
        silent = [layer.name for layer in self.layers if layer.is_silent]
        if silent:
            yield f"No width helps where no spike changes, in {', '.join(silent)}: scale the weights or inputs first."

    def _instruction(self) -> str:
        if self.suggested.verdict != "passes":
            name, stretch = (self.surrogate, 1.0) if self.surrogate else ("…", self.stretch)
            return f"To use it, write surrogate.Rescaled({name!r}, stretch={stretch:.3g}, gain={self.gain:.3g})."
        if self.surrogate:
            kept = f"rescaled(function={self.surrogate!r}, gain={1 / self.stretch:.3g})"
            return f'To use it, write {self.surrogate!r}; with the height that it has now, "{kept}".'
        return f"To use it, write surrogate.Rescaled(…, stretch={self.stretch:.3g}) around the present one."

    def _table(self) -> list[str]:
        rows = [
            ["layer", "mean", "std", "spikes", "within", "coherence", "gradient", "suggested", "signal", "suggested"]
        ]
        for layer in self.layers:
            mean = layer.mean if abs(layer.mean) > 1e-3 * layer.std else 0.0  # BatchNorm leaves what rounding leaves
            potentials = mean, layer.std, layer.rate, layer.within, layer.coherence
            gradients = layer.gradient, layer.suggested_gradient, layer.signal, layer.suggested_signal
            rows.append([layer.name, *(f"{value:.2g}" for value in (*potentials, *gradients))])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]

    def plot(self, path: str | PathLike) -> None:
        """Draw the norm of the gradient and its share of signal by layer, for several widths, into an image file.

        Args:
            path: file to write, .png, .svg or .pdf; written under a temporary name, then renamed.

        Raises:
            ValueError: if the suffix is another, or the folder does not exist.
            OSError: if the file cannot be written.
        """
        from matplotlib.figure import Figure

        path = Path(path)
        if path.suffix not in _IMAGES or not path.parent.is_dir():
            raise ValueError(f"plot: expected a {', '.join(_IMAGES)} file in an existing folder, got {path}")
        figure = Figure(figsize=(10, 4.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        self._draw(left, [width.gradients for width in self.widths])
        self._draw(right, [width.signals for width in self.widths])
        left.set(title="gradient", ylabel="norm at the potentials")
        right.set(title="share of it that is signal", ylabel="share of its energy", ylim=(SIGNAL / 100, 1.3))
        right.axhline(SIGNAL, color="0.6", linewidth=1, zorder=0)
        right.annotate(
            f"at least\n{SIGNAL:g}", (1, SIGNAL), xycoords=right.get_yaxis_transform(), xytext=(4, 0),
            textcoords="offset points", ha="left", va="center", color="0.4", fontsize="small",
        )  # fmt: skip
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
        save(figure, path, dpi=150)

    def _draw(self, axes: Axes, curves: Sequence[tuple[float, ...]]) -> None:
        from matplotlib import colormaps
        from matplotlib.ticker import MaxNLocator

        depths = range(1, len(self.layers) + 1)
        for place, (width, curve) in enumerate(zip(self.widths, curves, strict=True)):
            roles = {"present": width is self.present, "suggested": width is self.suggested}
            role = " and ".join(name for name, holds in roles.items() if holds)
            axes.plot(
                depths,
                [value if value > 0 else math.nan for value in curve],  # a logarithmic axis has no place for 0
                color=colormaps["viridis"](0.85 * place / max(1, len(self.widths) - 1)),
                label=f"{width.name} ({role})" if role else width.name,
                linestyle="--" if roles["present"] else "-",
                linewidth=3 if roles["suggested"] else 1.5,
                marker="o",
                markersize=3,
            )
        axes.set_yscale("log")
        axes.set_xlabel("layer, from the input to the output")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _described(width: MeasuredWidth) -> str:
    return (
        f"{width.name}. The gradient {width.verdict}: its norm at the first layer is {width.ratio:.2g} times that at "
        f"the last. The smallest share of signal at a layer is {width.signal:.2g}, where {SIGNAL:g} is enough."
    )


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
