"""Training with progress, metrics, atomic checkpoints and exact resumption.

A run's folder holds `config.json`, `data.json` (what the data are and how they are read), `metrics.jsonl` (one line
per epoch), `checkpoint.safetensors` (model, optimizer and random state after the last finished epoch),
`network.safetensors` where the recipe keeps another network than that of the last step, and, once finished,
`result.json` and pictures of the learning curves and the confusion matrix.
"""

from ..configuration import BINARY, OFFLINE, SPIKING, Recipe, Run
from .checkpoint import CHECKPOINT, load_checkpoint, save_checkpoint
from .describing import sample_shape
from .folder import read_config
from .loop import evaluate, fit, steps_in_epoch
from .processes import Processes
from .recipe import before_step
from .runs import load, make_loaders, make_model, train, train_folds

__all__ = [
    "BINARY",
    "CHECKPOINT",
    "OFFLINE",
    "SPIKING",
    "Processes",
    "Recipe",
    "Run",
    "before_step",
    "evaluate",
    "fit",
    "load",
    "load_checkpoint",
    "make_loaders",
    "make_model",
    "read_config",
    "sample_shape",
    "save_checkpoint",
    "steps_in_epoch",
    "train",
    "train_folds",
]
