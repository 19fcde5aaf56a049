"""The names that formulas are written with, for torch tensors and for the plain numbers that parameters may be.

A formula uses arithmetic, comparisons, `abs` and these names, nothing else. A kernel binds the same function
objects to its own versions of the names, so the mathematics is never typed a second time.
"""

import math

import torch


def _for_tensor_or_number(on_tensor, on_number):
    def function(z):
        return on_tensor(z) if isinstance(z, torch.Tensor) else on_number(z)

    return function


def where(condition, a, b):
    """Choose a where the condition holds, else b; for numbers as well as tensors."""
    if isinstance(condition, torch.Tensor):
        return torch.where(condition, a, b)
    return a if condition else b


exp = _for_tensor_or_number(torch.exp, math.exp)
tanh = _for_tensor_or_number(torch.tanh, math.tanh)
atan = torch.atan
erfc = torch.erfc
floor = torch.floor
clamp = torch.clamp

NAMES = frozenset({"atan", "clamp", "erfc", "exp", "floor", "tanh", "where"})
