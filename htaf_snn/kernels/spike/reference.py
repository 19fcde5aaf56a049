"""The definition of the elementwise operations, in plain torch. Half precision is computed in float32."""

from __future__ import annotations

import torch
from torch import Tensor

from ...formulas import Formula


def _widen(value):
    if isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16):
        return value.float()
    return value


def _evaluate(function, x: Tensor, parameters: tuple):
    wide = _widen(x)
    return function(wide, *(p.to(wide.dtype) if isinstance(p, Tensor) else p for p in parameters))


def heaviside(x: Tensor) -> Tensor:
    """1 where x > 0, else 0, in the dtype of x; zero and NaN do not spike."""
    return (x > 0).to(x.dtype)


def primitive(x: Tensor, formula: Formula, parameters: tuple) -> Tensor:
    """The formula's smooth step at x, in the dtype of x."""
    y = _evaluate(formula.primitive, x, parameters)
    # Compiled by torch 2.11, an autograd function that ends in a cast to the same dtype has a gradient of zero.
    return y if y.dtype == x.dtype else y.to(x.dtype)


def derivative(x: Tensor, formula: Formula, parameters: tuple) -> Tensor:
    """The formula's derivative at x, in float32 for half precision, else in the dtype of x."""
    return _evaluate(formula.derivative, x, parameters).to(_widen(x).dtype)


def parameter_gradients(x: Tensor, formula: Formula, parameters: tuple) -> tuple[Tensor, ...]:
    """The derivative of the primitive with respect to each parameter at x, of the shape of x."""
    return _evaluate(formula.parameter_gradients, x, parameters)
