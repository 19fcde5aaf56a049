"""The definition of a linear map of sparse rows, in plain torch.

Rows are in torch's CSR layout: those of row r are `columns` and `values` from crow[r] to crow[r + 1] - 1.
"""

from __future__ import annotations

import torch
from torch import Tensor


def dense(crow: Tensor, columns: Tensor, values: Tensor, features: int) -> Tensor:
    """Return the rows (R, F)."""
    rows = torch.repeat_interleave(torch.arange(len(crow) - 1, device=crow.device), crow.diff())
    zeros = values.new_zeros(len(crow) - 1, features)
    return zeros.index_put((rows, columns.long()), values, accumulate=True)


def compress(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return crow, int64 (R + 1,), columns, int32 (n,), and values (n,) of dense rows (R, F)."""
    places = x.nonzero()
    crow = torch.cat([places.new_zeros(1), (x != 0).sum(1).cumsum(0)])
    return crow, places[:, 1].to(torch.int32), x[tuple(places.T)]


def product(crow: Tensor, columns: Tensor, values: Tensor, weight: Tensor) -> Tensor:
    """Return the rows times the transposed weight (O, F): (R, O)."""
    return dense(crow, columns, values, weight.shape[1]) @ weight.T


def weight_gradient(crow: Tensor, columns: Tensor, values: Tensor, grad: Tensor, features: int) -> Tensor:
    """Return the gradient (O, F) of the weight from that of the product, (R, O)."""
    return grad.T @ dense(crow, columns, values, features)
