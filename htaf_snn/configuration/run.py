"""A run: its data, its network and its recipe."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal

from .checking import Checked, Only, Valid, effects, is_count, plain, require, within
from .fields import (
    AUGMENT,
    MAYBE_COUNT,
    MAYBE_DECAY,
    MAYBE_POSITIVE,
    SIZES,
    AnnealOf,
    Count,
    Device,
    Folds,
    Log,
    Norm,
    NotNegative,
    Positive,
    Resize,
    Schedule,
    Seed,
    Sizes,
)

# Spiking networks whose layers are listed, and those of the literature.
SHALLOW = ("mlp", "cnn")
DEEP = ("plif-net", "spiking-vgg11", "sew-resnet18", "sew-resnet34", "spikformer")
SPIKING = (*SHALLOW, *DEEP)
"""The names of spiking networks, for events."""
BINARY = ("bnn", "binary-cnn", "binary-resnet20", "dhn", "dhn-cnn")
"""The names of networks with binary activations, for images."""
# Their floating-point twins.
TWINS = ("relu", "relu-cnn", "relu-resnet20")
MODELS = (*SPIKING, *BINARY, *TWINS)
# Networks whose hidden layers all have `norm` and can start with the identity.
_PLAIN = ("mlp", "dhn", "relu", "dhn-cnn", "relu-cnn")
# The neuron of each library. Norse's LIF integrates only a fifth of a current in its first two time steps, so its
# threshold is lower than Norse's 1.
NEURONS = {"fused": "leaky(beta=0.9)", "snntorch": "leaky(beta=0.9)", "norse": "lif(v_th=0.3)"}
OFFLINE = {model: "saccade-digits" if model in SPIKING else "digits" for model in MODELS}
"""The data set that each network is trained on by default, which needs no download."""


@dataclass(frozen=True, kw_only=True)
class Data(Checked):
    """What a network is trained on.

    Attributes:
        dataset: a published set by its name; your own folder of class folders; or your own data set, FILE.py:NAME.
            Without one, saccade-digits or, for images, digits, which need no download.
        data_root: folder of a published set; otherwise its usual place.
        download: fetch the set if it is missing.
        resize: side, or height and width, to which images in files are resized; without it all must have one size.
        batch_size: samples per batch.
        val_fraction: fraction of the training samples held out for validation, in [0, 1).
        train_fraction: fraction of the remaining samples that is used for training, in (0, 1].
    """

    dataset: Annotated[
        str | None,
        Valid(
            "a name, a folder or FILE.py:NAME, as text (training.fit takes loaders of a set)",
            lambda v: v is None or isinstance(v, str),
        ),
    ] = None
    data_root: str | None = None
    download: bool = False
    resize: Resize = None
    batch_size: Count = 32
    val_fraction: Annotated[float, within(0, 1, "[)")] = 0.1
    train_fraction: Annotated[float, within(0, 1, "(]")] = 1.0


@dataclass(frozen=True, kw_only=True)
class Recordings(Data):
    """What a spiking network is trained on; the other attributes are those of `Data`.

    Attributes:
        n_time_bins: frames, that is time steps, per recording.
        folds: pool all recordings, and train and test on each of this many stratified folds.
        fold: train and test on this fold alone, counted from 0.
    """

    n_time_bins: Annotated[int, Valid("an integer of at least 1", is_count), Only(SPIKING)] = 10
    folds: Folds = None
    fold: int | None = None


@dataclass(frozen=True, kw_only=True)
class Network:
    """What is trained.

    Attributes:
        model: for events, a spiking network: mlp, cnn or one of the literature; for images, a fully connected or
            convolutional one: binary (bnn, binary-cnn, binary-resnet20), deep Heaviside (dhn, dhn-cnn) or the
            floating-point twin of these (relu, relu-cnn, relu-resnet20).
        library: implementation of the spiking neurons: fused, this package's; snntorch, with the same results, but
            slower; or norse.
        neuron: a neuron of the library with its parameters; by default "leaky(beta=0.9)", for norse "lif(v_th=0.3)",
            and for plif-net "parametric_lif" with a time constant that is learned.
        surrogate: a specification such as "htaf(beta=8)" or snntorch.atan, or your own, FILE.py:NAME.
        weight_surrogate: surrogate of binary weights, or magnitude_aware.
        hidden: neurons per hidden layer, or channels of a network whose name ends in cnn; by default 256,256 and 32,64.
        width: channels of a network of the literature, or features of the spikformer; by default as in its paper.
        dropout: dropout probability in plif-net and spiking-vgg11, with one mask per sequence.
        norm: batch (BatchNorm before the neurons), none, or auto: batch for images, none for spikes.
        identity: multiple of the identity in the weights at the start, as in DiracNets.
    """

    model: Literal[MODELS] = "mlp"  # type: ignore[valid-type]  # the names stand once, above
    library: Annotated[Literal[tuple(NEURONS)], Only(SPIKING)] = "fused"  # type: ignore[valid-type]  # likewise
    neuron: Annotated[str | None, Only(SPIKING)] = None
    surrogate: Annotated[str, Only((*SPIKING, *BINARY))] = "htaf"
    weight_surrogate: Annotated[str, Only(("bnn", "binary-cnn", "binary-resnet20"))] = "clipped_ste"
    # `Run` replaces None by the model's default.
    hidden: Annotated[Sizes, SIZES, Only((*_PLAIN, "cnn", "bnn", "binary-cnn"))] = None  # type: ignore[assignment]
    width: Annotated[
        int | None,
        MAYBE_COUNT,
        Only(("plif-net", "sew-resnet18", "sew-resnet34", "spikformer", "binary-resnet20", "relu-resnet20")),
    ] = None
    dropout: Annotated[float, within(0, 1, "[)"), Only(("plif-net", "spiking-vgg11"))] = 0.5
    norm: Annotated[Norm, Only(_PLAIN)] = "auto"
    identity: Annotated[float, within(0, 1e6), Only(_PLAIN)] = 0.0


@dataclass(frozen=True, kw_only=True)
class Recipe(Checked):
    """How a network is trained.

    Attributes:
        epochs: passes over the training data.
        lr: learning rate, in (0, 1e6].
        optimizer: adam, adamw, or sgd with momentum 0.9.
        weight_decay: weight decay of the optimizer, in [0, 1e6].
        schedule: course of the learning rate: constant, or cosine, which rises during the warm-up and then falls to 0.
        warmup: fraction of the steps in which a cosine rises, in [0, 1).
        anneal: none; hardness, from smooth (0, or the surrogate's own) to hard (1); alpha, which makes a smooth network
            steeper, up to the last alpha; or width, which in every step is twice the standard deviation of the layer's
            potentials, see `surrogate.AdaptiveWidth`.
        alpha_end: last alpha, with anneal alpha.
        loss: cross-entropy of the mean scores over time; tet, the mean cross-entropy of every time step's scores; or
            mse, the squared distance of the mean scores, such as spike rates, from 0 and 1.
        label_smoothing: share of the cross-entropy's target that is spread over all classes, in [0, 1).
        clip_gradient: largest norm of all gradients together; by default they are not clipped.
        accumulate: batches whose gradients are added up for one step of the optimizer.
        tbptt: time steps after which the gradient is cut off (truncated backpropagation through time).
        ema: decay per step of an exponential moving average of the weights, which is then tested; in (0, 1).
        augment: changes of the training samples, at random: flip (left and right), shift (up to an eighth of a side),
            cutout (a rectangle is erased).
        precision: fp32, or bf16 or fp16 for mixed precision.
        compiled: train through torch.compile.
        early_stopping: epochs without a better validation accuracy after which the training ends.
        keep: which network is tested and loaded, that of the last epoch or that of the best validation accuracy; by
            default best with early stopping, otherwise last.

    Raises:
        ValueError: if a value is out of range.

    Reference:
        Deng et al. 2022, "Temporal efficient training of spiking neural network via gradient re-weighting", ICLR, arXiv
        2202.11946, for tet. Jiang et al. 2025, IJCAI, arXiv 2505.11863, for width.

    Example:
        >>> Recipe(epochs=30, early_stopping=10).keeps_best
        True
    """

    epochs: Count = 20
    lr: Positive = 1e-3
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    weight_decay: NotNegative = 0.0
    schedule: Schedule = "constant"
    warmup: Annotated[float, within(0, 1, "[)")] = 0.1
    anneal: Annotated[AnnealOf, Only((*SPIKING, *BINARY))] = "none"
    alpha_end: Annotated[float, within(0, 1e6, "(]"), Only((*SPIKING, *BINARY))] = 20.0
    loss: Literal["cross-entropy", "tet", "mse"] = "cross-entropy"
    label_smoothing: Annotated[float, within(0, 1, "[)")] = 0.0
    clip_gradient: Annotated[float | None, MAYBE_POSITIVE] = None
    accumulate: Count = 1
    tbptt: Annotated[int | None, MAYBE_COUNT, Only(SPIKING)] = None
    ema: Annotated[float | None, MAYBE_DECAY] = None
    augment: Annotated[tuple[str, ...], AUGMENT] = ()
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compiled: bool = False
    early_stopping: Annotated[int | None, MAYBE_COUNT] = None
    keep: Literal["last", "best"] | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.warmup != type(self).warmup and self.schedule == "constant":
            raise ValueError(f"warmup: {self.warmup!r} has no effect with schedule='constant', only with cosine")
        if self.alpha_end != type(self).alpha_end and self.anneal != "alpha":
            raise ValueError(
                f"alpha_end: {self.alpha_end!r} has no effect with anneal={self.anneal!r}, only with alpha"
            )
        if self.label_smoothing and self.loss == "mse":
            raise ValueError(f"label_smoothing: {self.label_smoothing!r} has no effect with loss='mse'")
        if self.compiled and (self.loss == "tet" or self.tbptt is not None):
            cause = "loss='tet'" if self.loss == "tet" else f"tbptt={self.tbptt}"
            raise ValueError(f"compiled: expected False with {cause}, which takes every time step's scores, got True")

    @property
    def keeps_best(self) -> bool:
        """Whether the network with the best validation accuracy is kept, rather than the last."""
        return self.early_stopping is not None if self.keep is None else self.keep == "best"

    def _check_validation(self, val_fraction: float) -> None:
        """Raise ValueError if validation data are needed and there are none."""
        if val_fraction:
            return
        if self.early_stopping is not None:
            raise ValueError("early_stopping: expected None without validation data, for val_fraction=0")
        if self.keeps_best:
            raise ValueError("keep: expected 'last' without validation data, for val_fraction=0, got 'best'")


@dataclass(frozen=True, kw_only=True)
class Run(Recipe, Network, Recordings):
    """A run of `training.train`; the defaults take some 20 s on two cores.

    What depends on the model is settled when a run is made: `dataclasses.replace(run, model=…, hidden=None)` finds it
    anew, which without None stays that of the other model. So it is with `dataset` and, by library, `neuron`.

    The other attributes are those of `Recordings`, `Network` and `Recipe`.

    Attributes:
        seed: seed for weights, order and split.
        device: auto, cpu or cuda.
        log: none, or tensorboard, into the folder of the run.

    Raises:
        ValueError: if a value is out of range, or is not the default and has no effect on the model. `training.train`
            refuses an unknown surrogate or data set.

    Example:
        >>> run = Run(model="dhn", hidden=(64, 64), schedule="cosine")
        >>> run.dataset, run.epochs
        ('digits', 20)
        >>> Run(lr=0.0)
        Traceback (most recent call last):
            ...
        ValueError: lr: expected a number in (0, 1e6], got 0.0
    """

    seed: Seed = 0
    device: Device = "auto"
    log: Log = "none"

    def __post_init__(self):
        for name, value in self._by_model().items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        super().__post_init__()
        self._check_effects()
        if self.fold is not None and self.folds is None:
            raise ValueError(f"fold: expected None without folds, got {self.fold!r}")
        if self.fold is not None and not (self.folds and type(self.fold) is int and 0 <= self.fold < self.folds):
            raise ValueError(f"fold: expected a fold of {self.folds} folds, counted from 0, got {self.fold!r}")

    def _by_model(self) -> dict[str, Any]:
        """Return the defaults that depend on the model."""
        found: dict[str, Any] = {"dataset": OFFLINE.get(self.model)}
        if self.model in effects(Run).get("hidden", ()):
            found["hidden"] = (32, 64) if self.model.endswith("cnn") else (256, 256)
        if self.model in SPIKING:
            of_plif = self.model == "plif-net" and self.library == "fused"
            found["neuron"] = "parametric_lif(learn=('w',))" if of_plif else NEURONS.get(self.library)
        return found

    def _check_effects(self) -> None:
        """Raise ValueError if a value is no default and has no effect."""
        if self.folds is not None and self.model not in SPIKING:
            raise ValueError(f"folds: expected None for a model of images, got {self.folds}")
        if self.resize is not None and self.model in SPIKING:
            raise ValueError(f"resize: {self.resize!r} has no effect on the model {self.model}, only on images")
        if self.loss == "tet" and self.model not in SPIKING:
            raise ValueError(f"loss: 'tet' has no effect on the model {self.model}, only on spiking ones")
        if self.anneal == "width" and self.library != "fused":
            raise ValueError(
                f"anneal: 'width' needs the potentials, expected library='fused' with it, got {self.library!r}"
            )
        if self.tbptt is not None and self.tbptt >= self.n_time_bins:
            raise ValueError(f"tbptt: {self.tbptt} has no effect with n_time_bins={self.n_time_bins}, only below")
        self._check_validation(self.val_fraction)
        for name, suited in effects(type(self)).items():  # type: ignore[arg-type]
            value = getattr(self, name)
            if self.model not in suited and value != getattr(type(self), name):
                raise ValueError(
                    f"{name}: {value!r} has no effect on the model {self.model}, only on {', '.join(suited)}"
                )
        if self.identity and all(a != b for a, b in pairwise(self.hidden)):
            raise ValueError(
                f"identity: {self.identity!r} has no effect without two hidden layers of the same width in a row, got "
                f"hidden={self.hidden}"
            )


@dataclass(frozen=True, kw_only=True)
class ConceptRecipe(Recipe):
    """How an ICBM is trained; the other attributes are those of `Recipe`.

    Attributes:
        activity: weight of the penalty on concept rates outside 5 to 95 %.
        decorrelation: weight of the penalty on squared correlations between concepts.
        entropy: weight of the penalty on concept rates away from one half.

    Raises:
        ValueError: if a value is out of range.

    Example:
        >>> ConceptRecipe(epochs=5, entropy=0.5).schedule
        'cosine'
        >>> ConceptRecipe(activity=-1.0)
        Traceback (most recent call last):
            ...
        ValueError: activity: expected a number in [0, 1e6], got -1.0
    """

    lr: Positive = 8e-3
    schedule: Schedule = "cosine"
    activity: NotNegative = 1.0
    decorrelation: NotNegative = 0.01
    entropy: NotNegative = 0.0

    def __post_init__(self):
        super().__post_init__()
        if self.loss == "tet" or self.tbptt is not None:
            name, value = ("loss", "tet") if self.loss == "tet" else ("tbptt", self.tbptt)
            raise ValueError(f"{name}: {value!r} has no effect on an ICBM, only on spiking networks")


@dataclass(frozen=True, kw_only=True)
class ConceptRun(ConceptRecipe, Data):
    """A run of `concepts.train`; the other attributes are those of `Data` and `ConceptRecipe`.

    Attributes:
        n_concepts: number of concepts.
        surrogate: a specification such as "htaf(beta=8)"; for comparison also relu or relaxed_bernoulli.
        width: channels of the first stage of the backbone.
        max_concepts_per_class: fit a sparse head with at most this many weights per class.
        seed: seed for weights, order and split.
        device: auto, cpu or cuda.
        log: none, or tensorboard, into the folder of the run.

    Raises:
        ValueError: if a value is out of range; `concepts.train` refuses an unknown data set or surrogate.

    Example:
        >>> run = ConceptRun(n_concepts=32, max_concepts_per_class=4)
        >>> run.dataset, run.epochs
        ('digits', 20)
        >>> ConceptRun(n_concepts=8, max_concepts_per_class=9)
        Traceback (most recent call last):
            ...
        ValueError: max_concepts_per_class: expected None or 1 to 8, got 9
    """

    dataset: str = "digits"
    batch_size: Count = 64
    n_concepts: Count = 64
    surrogate: str = "htaf(alpha=0.5)"
    width: Count = 16
    max_concepts_per_class: int | None = None
    seed: Seed = 0
    device: Device = "auto"
    log: Log = "none"

    def __post_init__(self):
        super().__post_init__()
        self._check_validation(self.val_fraction)
        require(
            "max_concepts_per_class",
            self.max_concepts_per_class,
            "None" if self.surrogate == "relu" else f"None or 1 to {self.n_concepts}",
            lambda v: v is None or (is_count(v) and v <= self.n_concepts and self.surrogate != "relu"),
        )


def freed(values: Mapping[str, Any], changed: Collection[str]) -> dict[str, Any]:
    """Return a run's values without the defaults that follow from what is changed, which are then found anew.

    Args:
        values: the fields of a `Run`.
        changed: names of fields that get other values.

    Example:
        >>> values = {"model": "mlp", "library": "fused", "neuron": "leaky(beta=0.9)", "lr": 0.1}
        >>> freed(values, ["library"])
        {'model': 'mlp', 'library': 'fused', 'lr': 0.1}
    """
    if not {"model", "library"} & set(changed) or "model" not in values:
        return dict(values)
    derived = Run(**{name: values[name] for name in ("model", "library") if name in values})
    names = "dataset", "hidden", "neuron"
    return {k: v for k, v in values.items() if k not in names or plain(v) != getattr(derived, k)}
