"""Trials of studies."""

import json

from htaf_snn.compare import Settings

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
