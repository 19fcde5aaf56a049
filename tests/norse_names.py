"""Norse's modules that have `threshold`, and its own methods."""

import importlib

MODULES = [
    importlib.import_module(f"norse.torch.functional.{name}")
    for name in (
        "threshold", "coba_lif", "iaf", "izhikevich", "lif", "lif_adex", "lif_adex_refrac", "lif_box",
        "lif_ex", "lif_mc_refrac", "lif_refrac", "lsnn",
    )
]  # fmt: skip
ORIGINAL = {MODULES[0].threshold}  # in a set: as a name of this module it would be rebound as well
NORSE_METHODS = ("circ", "heavi_erfc", "heaviside", "super", "tanh", "triangle")
