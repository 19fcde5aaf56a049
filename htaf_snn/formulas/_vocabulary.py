"""The names that formulas are written with, for torch tensors.

`exp` and `tanh` also take the plain floats that parameters may be.

A formula uses arithmetic, comparisons, `abs` and these names, nothing else. A kernel binds the same function
objects to its own versions of the names, so the mathematics is never typed a second time.
"""

import math

import torch


def _for_tensor_or_float(on_tensor, on_float):
    def function(z):
        return on_tensor(z) if isinstance(z, torch.Tensor) else on_float(z)

    return function


exp = _for_tensor_or_float(torch.exp, math.exp)
tanh = _for_tensor_or_float(torch.tanh, math.tanh)
atan = torch.atan
erfc = torch.erfc
floor = torch.floor
clamp = torch.clamp
where = torch.where

NAMES = frozenset({"atan", "clamp", "erfc", "exp", "floor", "tanh", "where"})
