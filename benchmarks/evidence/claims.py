"""Each claim that is measured: its question and its studies, in full and in minutes on offline data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .concept_runs import ConceptClaim
from .convolutional import ConvolutionalClaim

Settings = dict[str, Any]


@dataclass(frozen=True)
class Claim:
    """A question and the studies that answer it.

    Attributes:
        name: of the command and of the files.
        question: what is asked, for the results page.
        studies: settings of `htaf_snn.compare.Settings.of`, by the name of the part.
        quick: settings that replace those of every part with `--quick`; an offline data set replaces one that is not.
        suggests: add the slope that `surrogate.suggest` gives for the first seed's network to the slopes.
    """

    name: str
    question: str
    studies: dict[str, Settings]
    quick: Settings = field(default_factory=dict)
    suggests: bool = False


AnyClaim = Claim | ConceptClaim | ConvolutionalClaim

RATES = (5e-4, 1e-3, 2e-3, 4e-3)
SUBSET = {"dataset": "fashion-mnist", "train_fraction": 0.37, "epochs": 6}
DEEP = {"model": "dhn", "width": 256, "batch_size": 128, "schedule": "cosine"}
# The slope and the start that dhn-paths chose from 8 layers on.
TWINS = DEEP | {"dataset": "fashion-mnist", "surrogates": ("htaf", "relu"), "identity": 1.0, "slopes": (0.5,)}
TWINS |= {"select": "val", "select_seeds": 1, "seeds": 11}
EIGHT = TWINS | {"depths": (8,), "epochs": 20, "lrs": (1e-3, 2e-3), "seeds": 6}
QUICK = {"train_fraction": 1.0, "width": 32, "epochs": 2, "seeds": 3, "select_seeds": 1}
QUICK_DEEP = QUICK | {"depths": (2, 4), "slopes": (0.5, 1.0), "lrs": (1e-3, 4e-3)}
OTHERS = ("htaf", "atan", "sigmoid", "triangle", "fast_sigmoid(slope=2.5)", "rectangle")
BINARY = {"model": "bnn", "width": 512, "batch_size": 128, "schedule": "cosine", "slopes": (0.5, 1.0)}
CHOSEN = {"select": "val", "select_seeds": 1, "seeds": 6}
EVENTS = {"model": "mlp", "width": 128, "epochs": 10, "slopes": (0.5, 1.0, 2.0), "lrs": (1e-3, 2e-3)}
SPIKING = CHOSEN | {"surrogates": OTHERS, "depths": (2, 5, 10)}
SATURATIONS = CHOSEN | {"surrogates": ("htaf", "htaf(beta=2)", "htaf(beta=8)")}
WIDER = CHOSEN | {"surrogates": ("htaf",), "slopes": (0.5,), "identity": 1.0}
WIDER_DEEP = DEEP | SUBSET | WIDER | {"depths": (8, 16, 32), "lrs": (5e-4, 1e-3)}
WIDER_SPIKING = EVENTS | WIDER | {"dataset": "saccade-digits", "depths": (5, 10)}
UNPENALISED = {"activity": 0.0, "decorrelation": 0.0}
CONCEPTS: dict[str, dict] = {
    "htaf": {"surrogate": "htaf(alpha=0.5)"},
    "htaf, α = 1": {"surrogate": "htaf"},
    "htaf, hardness annealed": {"surrogate": "htaf(alpha=0.5)", "anneal": "hardness"},
    "htaf, no penalties": {"surrogate": "htaf(alpha=0.5)"} | UNPENALISED,
    # The penalties are on the rates of concepts, which real features do not have.
    "relu": {"surrogate": "relu"} | UNPENALISED,
    "sigmoid": {"surrogate": "sigmoid(slope=1)"},
    "clipped_ste": {"surrogate": "clipped_ste"},
    "relaxed_bernoulli": {"surrogate": "relaxed_bernoulli"},
}
# Short trainings at one learning rate that has not been tuned.
IMAGES = {"batch_size": 64, "lr": 2e-3, "schedule": "cosine"}
CONVOLUTIONS = IMAGES | {"hidden": (32, 64, 128), "epochs": 6}
RESIDUAL = IMAGES | {"epochs": 4}
FEWER_IMAGES = {
    "fashion-mnist": {"val_fraction": 0.02, "train_fraction": 0.17},
    "cifar10": {"train_fraction": 0.5},
}
WIDTHS = {"surrogates": ("htaf",), "slopes": tuple(2 ** (power / 2) for power in range(-6, 3)), "lrs": (1e-3,)}
WIDTHS |= {"select": "none", "seeds": 5}

CLAIMS: list[AnyClaim] = [
    Claim(
        "dhn-paths",
        "Deep Heaviside networks: from smooth to hard, or spikes from the start? What carries a gradient through 32 "
        "layers?",
        {
            "fashion-mnist": DEEP
            | SUBSET
            | {"surrogates": ("htaf", "relu"), "anneal": ("none", "hardness", "alpha"), "alpha_end": 5.0}
            | {"identity": (0.0, 1.0), "depths": (2, 8, 16, 32), "slopes": (0.25, 0.5, 1.0), "lrs": RATES}
            | CHOSEN
        },
        QUICK_DEEP,
    ),
    Claim(
        "dhn-surrogates",
        "Deep Heaviside networks: which surrogate, each at its own width and learning rate?",
        {
            "fashion-mnist": DEEP
            | SUBSET
            | {"surrogates": OTHERS, "depths": (2, 8, 16, 32), "slopes": (0.25, 0.5, 1.0), "lrs": (5e-4, 2e-3)}
            | CHOSEN
            | {"identity": 1.0},
            "digits without BatchNorm": DEEP
            | {"dataset": "digits", "norm": "none", "width": 128, "epochs": 30, "batch_size": 64}
            | {"surrogates": OTHERS, "depths": (2, 8, 16, 32), "slopes": (0.25, 0.5, 1.0), "lrs": (1e-3, 4e-3)}
            | CHOSEN,
        },
        QUICK_DEEP,
    ),
    Claim(
        "dhn-twin",
        "How far is a deep Heaviside network from its floating-point twin, on all of Fashion-MNIST?",
        {
            "8 layers": TWINS | {"depths": (8,), "epochs": 20, "lrs": (1e-3, 2e-3)},
            "16 layers": TWINS | {"depths": (16,), "epochs": 10, "lrs": (5e-4, 1e-3)},
            "32 layers": TWINS | {"depths": (32,), "epochs": 10, "lrs": (5e-4, 1e-3)},
        },
        QUICK_DEEP,
    ),
    Claim(
        "dhn-eight",
        "Eight layers are more than a point behind their twin: does another surrogate, a path or more epochs help?",
        {
            "surrogates": EIGHT | {"surrogates": ("htaf", "atan", "sigmoid", "relu")},
            "hardness annealed": EIGHT | {"surrogates": ("htaf",), "anneal": "hardness"},
            "40 epochs": EIGHT | {"epochs": 40},
        },
        QUICK_DEEP,
    ),
    Claim(
        "bnn",
        "Binary networks: which surrogate, each at its own width and learning rate?",
        {
            "fashion-mnist": BINARY
            | {"dataset": "fashion-mnist", "epochs": 10, "lrs": (1e-3, 4e-3)}
            | {"surrogates": ("htaf", "approx_sign", "clipped_ste", "ede", "relu"), "anneal": ("none", "hardness")}
            | CHOSEN
        },
        QUICK,
    ),
    Claim(
        "snn-depth",
        "Spiking networks: which surrogate, each at its own width and learning rate, by depth?",
        {
            "saccade-digits": EVENTS | SPIKING | {"dataset": "saccade-digits", "identity": 1.0},
            "saccade-digits with BatchNorm": EVENTS | SPIKING | {"dataset": "saccade-digits", "norm": "batch"},
            "saccade-digits without the identity": EVENTS
            | SPIKING
            | {"dataset": "saccade-digits", "surrogates": ("htaf", "atan")},
            "nmnist": EVENTS | SPIKING | {"dataset": "nmnist", "identity": 1.0},
        },
        {"folds": None, "width": 16, "epochs": 1, "n_time_bins": 3, "depths": (2, 3)}
        | {"slopes": (1.0,), "lrs": (1e-3, 1e-2), "seeds": 3, "surrogates": ("htaf", "atan")},
    ),
    Claim(
        "saturation",
        "HTAF's saturation: does another β serve better, each at its own width and learning rate?",
        {
            "dhn": DEEP | SUBSET | SATURATIONS | {"depths": (8,), "slopes": (0.25, 0.5, 1.0), "lrs": (1e-3, 4e-3)},
            "bnn": SUBSET | BINARY | SATURATIONS | {"epochs": 6, "lrs": (1e-3, 4e-3)},
            "snn": EVENTS | SATURATIONS | {"dataset": "saccade-digits", "identity": 1.0, "depths": (5,)},
        },
        {"train_fraction": 1.0, "width": 16, "epochs": 1, "seeds": 3, "depths": (2,), "slopes": (1.0,)},
    ),
    Claim(
        "peak",
        "HTAF at half its steepness: does its gradient need a peak of 1, or is one of 1/2, `htaf(alpha=0.5)`, as good?",
        {
            "dhn, peak of 1": WIDER_DEEP,
            "dhn, peak of 1/2": WIDER_DEEP | {"match": "none"},
            "snn, peak of 1": WIDER_SPIKING,
            "snn, peak of 1/2": WIDER_SPIKING | {"match": "none"},
        },
        {"train_fraction": 1.0, "width": 16, "epochs": 1, "seeds": 3, "depths": (2, 3)},
    ),
    Claim(
        "suggestion",
        "Does `surrogate.suggest` find the width? Networks that its limits were not calibrated on.",
        {
            "dhn of 12 layers, fashion-mnist": DEEP
            | WIDTHS
            | {"dataset": "fashion-mnist", "train_fraction": 0.2, "epochs": 6, "width": 128, "depths": (12,)},
            "dhn of 8 layers, digits": DEEP | WIDTHS | {"dataset": "digits", "width": 64, "epochs": 30, "depths": (8,)},
            "dhn of 6 layers without BatchNorm, digits": DEEP
            | WIDTHS
            | {"dataset": "digits", "norm": "none", "width": 64, "epochs": 30, "depths": (6,)},
            "snn of 5 layers, saccade-digits": EVENTS
            | WIDTHS
            | {"dataset": "saccade-digits", "depths": (5,), "identity": 1.0},
        },
        QUICK | {"select_seeds": None, "slopes": (0.25, 0.5), "depths": (3,)},
        suggests=True,
    ),
    *(
        ConceptClaim(
            f"concepts-{dataset}",
            f"Concept models, {dataset}: how much accuracy do bits cost, and do they carry all that the concepts know?",
            {dataset: {"dataset": dataset, "epochs": epochs, "n_concepts": 256}},
            CONCEPTS,
            lrs=(4e-3, 8e-3, 16e-3, 32e-3),
            quick={"digits": {"dataset": "digits", "epochs": 3, "n_concepts": 16, "width": 4}},
        )
        for dataset, epochs in (("fashion-mnist", 5), ("cifar10", 10))
    ),
    *(
        ConvolutionalClaim(
            f"convolutional-{dataset}",
            f"Convolutional networks with binary activations, {dataset}: how far behind their floating-point twins "
            "after a short training?",
            {dataset: {"dataset": dataset, **images}},
            {"binary-resnet20": RESIDUAL, "relu-resnet20": RESIDUAL, "dhn-cnn": CONVOLUTIONS, "relu-cnn": CONVOLUTIONS},
            {"binary-resnet20": "relu-resnet20", "dhn-cnn": "relu-cnn"},
            quick={"digits": {"dataset": "digits", "epochs": 1}},
        )
        for dataset, images in FEWER_IMAGES.items()
    ),
]  # fmt: skip


def named(name: str) -> AnyClaim:
    """Return the claim of that name.

    Raises:
        ValueError: if there is none.
    """
    claims = {claim.name: claim for claim in CLAIMS}
    if name not in claims:
        raise ValueError(f"name: expected one of {', '.join(claims)}, got {name!r}")
    return claims[name]
