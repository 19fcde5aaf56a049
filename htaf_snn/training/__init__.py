"""The training loop: progress, metrics, atomic checkpoints, exact resume.

A run's folder holds `config.json`, `metrics.jsonl` (one line an epoch), `checkpoint.safetensors` (model, optimizer and
random state after the last finished epoch) and, once finished, `result.json`.
"""

from .checkpoint import CHECKPOINT, load_checkpoint, save_checkpoint
from .loop import evaluate, evaluate_hard, fit, hardened, steps_in_epoch
from .processes import Processes
from .recipe import before_step
from .runs import (
    HARDENED,
    OFFLINE,
    SPIKING,
    TrainConfig,
    hardened_network,
    image_loaders,
    load,
    make_loaders,
    read_config,
    sample_shape,
    train,
    train_folds,
)

__all__ = [
    "CHECKPOINT",
    "HARDENED",
    "OFFLINE",
    "SPIKING",
    "Processes",
    "TrainConfig",
    "before_step",
    "evaluate",
    "evaluate_hard",
    "fit",
    "hardened",
    "hardened_network",
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
