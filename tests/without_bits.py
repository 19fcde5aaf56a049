"""Packed networks computed in float32."""

import torch


@torch.no_grad()
def assert_same_without_bits(packed, x):
    """Assert that a packed network gives the same float32 numbers, -0.0 and NaN included, when it computes in them."""
    expected, found = packed._by_bits(x.float()), packed._by_floats(x.float())
    assert found.dtype == torch.float32 and torch.equal(found.view(torch.int32), expected.view(torch.int32))
