"""Training with progress, metrics, atomic checkpoints and exact resumption.

A run's folder holds `config.json`, `metrics.jsonl` (one line per epoch), `checkpoint.safetensors` (model, optimizer and
random state after the last finished epoch) and, once finished, `result.json`.
"""

from .checkpoint import CHECKPOINT, load_checkpoint, save_checkpoint
from .loop import evaluate, evaluate_hard, fit, hardened, steps_in_epoch
from .processes import Processes
from .recipe import before_step
from .runs import (
    BINARY,
    OFFLINE,
    SPIKING,
    TrainConfig,
    binary_network,
    image_loaders,
    load,
    make_loaders,
    read_config,
    sample_shape,
    train,
    train_folds,
)

__all__ = [
    "BINARY",
    "CHECKPOINT",
    "OFFLINE",
    "SPIKING",
    "Processes",
    "TrainConfig",
    "before_step",
    "binary_network",
    "evaluate",
    "evaluate_hard",
    "fit",
    "hardened",
    "image_loaders",
    "load",
    "load_checkpoint",
    "make_loaders",
    "read_config",
    "sample_shape",
    "save_checkpoint",
    "steps_in_epoch",
    "train",
    "train_folds",
]
