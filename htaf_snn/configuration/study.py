"""What a study compares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from .checking import Checked, Valid, is_count, within
from .fields import Count, Device, Folds, Match, Norm, Positive, Resize, Schedule

Several = tuple[str, ...]
Numbers = tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Compared(Checked):
    """What all trials of a study have in common.

    Attributes:
        model: spiking, mlp; of images, bnn (binary) or dhn (deep Heaviside).
        dataset: as in `Data`.
        data_root: folder of a published set; with several, a folder with a subfolder for each, by name.
        resize: as in `Data`.
        match: quantity made equal for all surrogates: none, peak, half_width or area.
        reference: surrogate that the others are matched to, and whose gradients theirs are compared with.
        width: neurons per hidden layer.
        weight_surrogate: surrogate of the bnn's weights, or magnitude_aware.
        norm: batch (BatchNorm before the neurons), none, or auto: batch for images, none for spikes.
        identity: multiple of the identity in the weights at the start.
        epochs: passes over the training data.
        batch_size: samples per batch.
        n_time_bins: frames, that is time steps, per recording.
        schedule: of the learning rate, constant or cosine, as in `Recipe`.
        anneal: none, hardness or alpha, as in `Recipe`.
        alpha_end: last alpha, with anneal alpha.
        train_fraction: fraction of the training data left after validation that is trained on, in (0, 1].
        folds: pool all recordings; seed s tests on fold s modulo this number of stratified folds.
        device: auto, cpu or cuda; workers share a GPU.
    """

    model: Literal["mlp", "bnn", "dhn"] = "mlp"
    dataset: str | Several | None = None
    data_root: str | None = None
    resize: Resize = None
    match: Match = "peak"
    reference: str = "htaf"
    width: Annotated[int, Valid("an integer >= 1", is_count)] = 128
    weight_surrogate: str = "clipped_ste"
    norm: Norm = "auto"
    identity: float | Numbers = 0.0
    epochs: Count = 8
    batch_size: Count = 32
    n_time_bins: Count = 10
    schedule: Schedule = "constant"
    anneal: str | Several = "none"
    alpha_end: Positive = 20.0
    train_fraction: Annotated[float, within(0, 1, "(]")] = 1.0
    folds: Folds = None
    device: Device = "auto"


@dataclass(frozen=True, kw_only=True)
class StudySettings(Compared):
    """What a study compares: all combinations of the values below.

    The other attributes are those of `Compared`.

    Attributes:
        dataset: one or several, as in `Data`. Without one, saccade-digits or, for images, digits.
        surrogates: specifications such as "htaf(beta=8)" or snntorch.atan; the first is the baseline of the tests. For
            images also relu, the floating-point twin. Without them, five of the field, others for images.
        anneal: what is annealed, none, hardness or alpha; one or several.
        identity: multiples of the identity in the weights at the start.
        slopes: factors of the surrogates' argument, > 0; a larger one makes every surrogate narrower.
        depths: numbers of hidden layers.
        lrs: learning rates.
        seeds: number of seeds, 0, 1, …; at least 3 for a claim.
        select: val, to compare each arm at the slope and learning rate that validation chose; or none.
        select_seeds: seeds that select; the others are trained at the chosen places only, and they alone are compared.
            Without it, all select.
    """

    # `compare.Settings` replaces None by the defaults of the model.
    dataset: Several = None  # type: ignore[assignment]
    surrogates: Several = None  # type: ignore[assignment]
    anneal: Several = ("none",)
    identity: Numbers = (0.0,)
    slopes: Numbers = (1.0,)
    depths: tuple[int, ...] = (2,)
    lrs: Numbers = (1e-3,)
    seeds: Annotated[int, Valid("an integer >= 1", is_count)] = 5
    select: Literal["none", "val"] = "none"
    select_seeds: int | None = None
