"""Kernels as operators of torch, so that compilers, vmap and fake tensors know them."""

from __future__ import annotations

from collections.abc import Callable

import torch

__all__ = ["operator"]


def operator(function: Callable) -> torch._ops.OpOverload:
    """Register a function, by its name and annotations, as torch.ops.htaf_snn.<name>.

    Not by `torch.library.custom_op`, which imports all of torch's compiler, two seconds, when it is first called.
    """
    name = f"htaf_snn::{function.__name__}"
    torch.library.define(name, torch.library.infer_schema(function, mutates_args=()))
    torch.library.impl(name, "CompositeExplicitAutograd", function)
    return getattr(torch.ops.htaf_snn, function.__name__).default
