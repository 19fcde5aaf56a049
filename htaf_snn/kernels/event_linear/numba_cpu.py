"""A linear map of sparse rows for the CPU, compiled by Numba."""

from __future__ import annotations

import numpy as np
import torch

from ..numba_cpu import compiled, empty, run


def _count_kernel(start, stop, x, counts):
    for r in range(start, stop):
        count = 0
        for f in range(x.shape[1]):  # without branches, so that it is vectorised
            count += x[r, f] != 0
        counts[r] = count


def _fill_kernel(start, stop, x, words, crow, columns, values):
    cells = x.shape[1] // max(words.shape[1], 1)
    for r in range(start, stop):
        place, end = crow[r], crow[r + 1]
        for word in range(words.shape[1]):
            if words[r, word] == 0:
                continue
            for f in range(word * cells, (word + 1) * cells):
                if place < end:  # write unconditionally: a branch on events mispredicts
                    columns[place], values[place] = np.int32(f), x[r, f]
                    place += x[r, f] != 0


def _words(rows):
    """Return rows in words of eight bytes, most of which have no event, if the length of a row allows it."""
    return rows.view(np.uint64) if rows.shape[1] * rows.itemsize % 8 == 0 else rows


def compress(x):
    """Compute `reference.compress`."""
    rows = x.contiguous().numpy()
    counts, crow = np.empty(len(rows), np.int64), np.zeros(len(rows) + 1, np.int64)
    run(compiled(_count_kernel), len(rows), rows.shape[1] // 8, rows, counts)
    np.cumsum(counts, out=crow[1:])
    columns, values = np.empty(crow[-1], np.int32), np.empty(crow[-1], rows.dtype)
    run(compiled(_fill_kernel), len(rows), rows.shape[1], rows, _words(rows), crow, columns, values)
    return torch.from_numpy(crow), torch.from_numpy(columns), torch.from_numpy(values)


def _product_kernel(start, stop, crow, columns, values, weight, out):
    for r in range(start, stop):
        sums = out[r]
        sums[:] = 0
        k, end = crow[r], crow[r + 1]
        while k + 4 <= end:  # the same order as one at a time, with a quarter of the reads and writes of the sums
            a, b, c, d = weight[columns[k]], weight[columns[k + 1]], weight[columns[k + 2]], weight[columns[k + 3]]
            of_a, of_b, of_c, of_d = values[k], values[k + 1], values[k + 2], values[k + 3]
            for o in range(len(sums)):
                sums[o] = sums[o] + of_a * a[o] + of_b * b[o] + of_c * c[o] + of_d * d[o]
            k += 4
        while k < end:
            row, value = weight[columns[k]], values[k]
            for o in range(len(sums)):
                sums[o] += value * row[o]
            k += 1


def product(crow, columns, values, weight):
    """Compute `reference.product`; the rows of the transposed weight lie in a row."""
    out = empty((len(crow) - 1, weight.shape[0]), weight.dtype)
    work = weight.shape[0] * (1 + len(columns) // max(len(out), 1)) // 4
    arrays = [part.contiguous().numpy() for part in (crow, columns, values, _transposed(weight))]
    run(compiled(_product_kernel), len(out), work, *arrays, out.numpy())
    return out


def _transposed(x):
    return empty((x.shape[1], x.shape[0]), x.dtype).copy_(x.T)


def _by_column_kernel(crow, columns, values, starts, rows, sorted_values):
    for k in range(len(columns)):
        starts[columns[k] + 1] += 1
    for f in range(1, len(starts)):
        starts[f] += starts[f - 1]
    place = starts.copy()
    for r in range(len(crow) - 1):
        for k in range(crow[r], crow[r + 1]):
            f = columns[k]
            rows[place[f]] = np.int32(r)
            sorted_values[place[f]] = values[k]
            place[f] += 1


def weight_gradient(crow, columns, values, grad, features):
    """Compute `reference.weight_gradient`: the entries are sorted by column, whose sums are then independent."""
    crow, columns, values = (part.contiguous().numpy() for part in (crow, columns, values))
    starts, rows = np.zeros(features + 1, np.int64), np.empty(len(columns), np.int32)
    by_column = np.empty_like(values)
    compiled(_by_column_kernel)(crow, columns, values, starts, rows, by_column)
    out = empty((features, grad.shape[1]), grad.dtype)
    work = grad.shape[1] * (1 + len(columns) // max(features, 1)) // 4
    run(compiled(_product_kernel), features, work, starts, rows, by_column, grad.contiguous().numpy(), out.numpy())
    return _transposed(out)
