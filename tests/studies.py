"""Trials of studies."""

import json
from contextlib import contextmanager

import pytest
import torch

from htaf_snn.compare import Settings, Study

STILL = {"width": 8, "epochs": 1, "batch_size": 256}
SMALL = STILL | {"n_time_bins": 2}
SURROGATES = ["htaf", "snntorch.atan", "norse.super"]


def without_times(results):
    """The results without the figures that are not reproducible."""
    return json.dumps([[trial["config"], {**trial["result"], "times": None}] for trial in results])


def one_trial(surrogate="htaf", *, seed=0, depth=2, slope=1.0, lr=1e-3, **values):
    """Return the trial of a study of one surrogate, slope, depth and learning rate."""
    lists = {"surrogates": [surrogate], "depths": [depth], "slopes": [slope], "lrs": [lr]}
    return Settings.of(**lists, seeds=seed + 1, **values).trials()[-1]


@contextmanager
def workers_here():
    """Within the block this process does the work of a study's workers, to save their starts."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as workers have
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Study, "_run_workers", lambda study, workers, progress, stack_seeds, *_: study.work(stack_seeds))
        yield
    torch.set_num_threads(threads)
