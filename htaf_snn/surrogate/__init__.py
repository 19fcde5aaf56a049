"""Surrogates: the step x > 0 with a surrogate gradient, its smooth stand-in, and all between the two.

Every surrogate maps a floating-point tensor of any shape to one of the same shape and dtype, in training and in eval
mode alike. `resolve` reads a surrogate in any form.
"""

from .adapting import AdaptiveWidth
from .base import Foreign, Formula, Surrogate
from .formulas.atan import ATan as ATan
from .formulas.clipped_ste import ClippedSTE as ClippedSTE
from .formulas.ede import EDE as EDE
from .formulas.erfc import Erfc as Erfc
from .formulas.fast_sigmoid import FastSigmoid as FastSigmoid
from .formulas.gaussian import Gaussian as Gaussian
from .formulas.htaf import HTAF as HTAF
from .formulas.piecewise_exp import PiecewiseExp as PiecewiseExp
from .formulas.rectangle import Rectangle as Rectangle
from .formulas.sigmoid import Sigmoid as Sigmoid
from .formulas.straight_through import StraightThrough as StraightThrough
from .formulas.swish_sign import SwishSign as SwishSign
from .formulas.triangle import Triangle as Triangle
from .rescaled import Rescaled
from .specifications import SurrogateLike, fault, names, register, resolve
from .suggesting import suggest
from .suggestions import MeasuredLayer, MeasuredWidth, Suggestion

__all__ = ["AdaptiveWidth", "Foreign", "Formula", "MeasuredLayer", "MeasuredWidth", "Rescaled", "Suggestion"]
__all__ += ["Surrogate", "SurrogateLike", "fault", "names", "register", "resolve", "suggest"]

for _cls in Surrogate.__subclasses__():
    if _cls.formula is not None:
        __all__ += [register(_cls).__name__]
