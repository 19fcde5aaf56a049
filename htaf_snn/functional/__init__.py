"""Stateless functions: they check their arguments, then compute with the fastest backend."""

from ..neurons import NEURONS
from .bits import (
    BinaryWeight,
    binary_conv2d,
    binary_linear,
    heaviside_linear,
    level_linear,
    pack_bits,
    pack_weight,
    unpack_bits,
)
from .events import event_linear
from .sequences import over_time, run, run_recurrent
from .steps import htaf, htaf_derivative, smooth, spike

alpha = over_time(NEURONS["alpha"])
coba_lif = over_time(NEURONS["coba_lif"])
iaf = over_time(NEURONS["iaf"])
izhikevich = over_time(NEURONS["izhikevich"])
lapicque = over_time(NEURONS["lapicque"])
leaky = over_time(NEURONS["leaky"])
li = over_time(NEURONS["li"])
li_box = over_time(NEURONS["li_box"])
lif = over_time(NEURONS["lif"])
lif_adex = over_time(NEURONS["lif_adex"])
lif_adex_refrac = over_time(NEURONS["lif_adex_refrac"])
lif_box = over_time(NEURONS["lif_box"])
lif_ex = over_time(NEURONS["lif_ex"])
lif_refrac = over_time(NEURONS["lif_refrac"])
lsnn = over_time(NEURONS["lsnn"])
parametric_lif = over_time(NEURONS["parametric_lif"])
state_leaky = over_time(NEURONS["state_leaky"])
synaptic = over_time(NEURONS["synaptic"])

__all__ = [
    "BinaryWeight",
    "alpha",
    "binary_conv2d",
    "binary_linear",
    "coba_lif",
    "event_linear",
    "heaviside_linear",
    "htaf",
    "htaf_derivative",
    "iaf",
    "izhikevich",
    "lapicque",
    "leaky",
    "level_linear",
    "li",
    "li_box",
    "lif",
    "lif_adex",
    "lif_adex_refrac",
    "lif_box",
    "lif_ex",
    "lif_refrac",
    "lsnn",
    "pack_bits",
    "pack_weight",
    "parametric_lif",
    "run",
    "run_recurrent",
    "smooth",
    "spike",
    "state_leaky",
    "synaptic",
    "unpack_bits",
]
