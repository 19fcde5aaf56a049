"""The columns of a study's table."""

from __future__ import annotations

from typing import NamedTuple

TOLERANCE = 0.02
"""Accuracy below the best within which a learning rate belongs to the plateau."""


class Column(NamedTuple):
    """A column of the table: its heading, its meaning and, unless it is always shown, the group it belongs to."""

    heading: str
    meaning: str
    group: str = ""


COLUMNS = {
    "dataset": Column("data", "the data set"),
    "depth": Column("depth", "number of hidden layers"),
    "place": Column("at", "values of the axes"),
    "surrogate": Column("surrogate", "library and parameters as given; without a library, this package's"),
    "anneal": Column("annealed", "what is moved in the training: the hardness from 0 to 1, alpha, the width, or none"),
    "identity": Column("identity", "multiple of the identity in the weights at the start"),
    "variant": Column("variant", "values of the axes, which are compared"),
    "slope": Column("slope", "factor of the surrogate's argument; a larger one makes it narrower"),
    "lr": Column("lr", "learning rate"),
    "seeds": Column("seeds", "finished trials"),
    "mean": Column("test accuracy", "mean over seeds, of the network that is kept: by default that of the last epoch"),
    "std": Column("±", "standard deviation over seeds"),
    "rank": Column("rank", "mean rank in the setting over the seeds that all of its arms have finished, 1 is best"),
    "difference": Column("difference", "mean accuracy minus the baseline's in the same setting, paired by seed"),
    "p_holm": Column(
        "p (Holm)",
        "of the paired t-test over seeds, after Holm's correction over all comparisons at one data set, depth and "
        "value of the axes",
    ),
    "claim": Column("claim", "conclusion at the 5 % level"),
    "chance": Column("chance", "accuracy of guessing, one over the number of classes", "intervals"),
    "low": Column(
        "mean, 95 % from",
        "lower end of the 95 % interval of the mean by Student's t on the scale of the log-odds",
        "intervals",
    ),
    "high": Column("mean, 95 % to", "upper end of that interval", "intervals"),
    "bootstrap_low": Column(
        "mean, bootstrap from", "lower end of the 95 % bootstrap interval of the mean", "intervals"
    ),
    "bootstrap_high": Column("mean, bootstrap to", "upper end of the 95 % bootstrap interval of the mean", "intervals"),
    "difference_low": Column(
        "difference, 95 % from", "lower end of Student's t interval of the difference, 95 %, unadjusted", "intervals"
    ),
    "difference_high": Column("difference, 95 % to", "upper end of that interval", "intervals"),
    "effect": Column("effect d", "Cohen's d of the paired differences", "intervals"),
    "plateau": Column(
        "plateau",
        f"largest over smallest learning rate, in a row, with validation accuracy {TOLERANCE:g} below best or better",
        "selection",
    ),
    "plateau_open": Column(
        "open", "whether the plateau reaches the end of the learning rates tried, and may go on", "selection"
    ),
    "val_accuracy": Column("val.", "validation accuracy of that network", "selection"),
    "spike_rate": Column(
        "spike rate", "fraction of outputs above 0 over neurons and time steps, on the test part", "activity"
    ),
    "dead": Column("dead", "fraction of neurons whose output is never above 0 on the test part", "activity"),
    "saturated": Column(
        "saturated", "fraction of neurons whose output is above 0 in at least 95 % of the time steps", "activity"
    ),
    "hardening_gap": Column(
        "hardening gap", "accuracy at the surrogate's hardness minus that of the hard network", "activity"
    ),
    "gradient_ratio": Column(
        "first / last gradient",
        "ratio of the norms of the cross-entropy's gradient at the first and the last layer, before training",
        "gradients",
    ),
    "cosine_end": Column(
        "cosine",
        "between the cross-entropy's gradients after training of this and the reference surrogate, on one batch",
        "gradients",
    ),
    "acs": Column("ACs", "accumulations per sample, NeuroBench's effective operations", "cost"),
    "energy_nj": Column("energy, nJ", "per sample, at 0.9 pJ per AC and 4.6 pJ per MAC (45 nm, Horowitz 2014)", "cost"),
    "ms_per_batch": Column("ms per batch", "time per batch of the fastest epoch, validation included", "cost"),
    "peak_mb": Column("peak MB", "peak memory: of tensors on the GPU, or of the worker's process so far", "cost"),
    "stretch": Column("stretch", "factor of the argument that matched the surrogate to the reference", "matching"),
    "gain": Column("gain", "factor of the gradient that matched the surrogate to the reference", "matching"),
    "width": Column(
        "width",
        "full width at half maximum of the gradient at the start; empty where the width follows the potentials",
        "matching",
    ),
    "at_zero": Column("spike at 0", "whether a potential of exactly 0 spikes", "matching"),
    "fault": Column("known fault", "a fault of the library's surrogate", "matching"),
}
"""The columns of the table."""
