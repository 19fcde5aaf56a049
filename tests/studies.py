"""Trials of studies."""

from htaf_snn.compare import Settings


def one_trial(surrogate="htaf", *, seed=0, depth=2, slope=1.0, lr=1e-3, **values):
    """Return the trial of a study of one surrogate, slope, depth and learning rate."""
    lists = {"surrogates": [surrogate], "depths": [depth], "slopes": [slope], "lrs": [lr]}
    return Settings.of(**lists, seeds=seed + 1, **values).trials()[-1]
