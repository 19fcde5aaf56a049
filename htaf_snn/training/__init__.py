"""The training loop: progress, metrics, atomic checkpoints, exact resume.

A run's folder holds `config.json`, `metrics.jsonl` (one line an epoch), `checkpoint.safetensors` (model, optimizer and
random state after the last finished epoch) and, once finished, `result.json`.
"""

from .checkpoint import CHECKPOINT, load_checkpoint, save_checkpoint
from .loop import evaluate, fit
from .processes import Processes
from .runs import TrainConfig, load, read_config, train, train_folds

__all__ = [
    "CHECKPOINT",
    "Processes",
    "TrainConfig",
    "evaluate",
    "fit",
    "load",
    "load_checkpoint",
    "read_config",
    "save_checkpoint",
    "train",
    "train_folds",
]
