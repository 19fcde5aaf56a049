"""Registration of kernels as torch operators, for compilers, vmap and fake tensors."""

from __future__ import annotations

from collections.abc import Callable

import torch


def operator(function: Callable) -> torch._ops.OpOverload:
    """Register a function, by its name and annotations, as torch.ops.htaf_snn.<name>.

    `torch.library.custom_op` would import torch's compiler at its first call, which takes two seconds.
    """
    name = f"htaf_snn::{function.__name__}"
    torch.library.define(name, torch.library.infer_schema(function, mutates_args=()))
    torch.library.impl(name, "CompositeExplicitAutograd", function)
    return getattr(torch.ops.htaf_snn, function.__name__).default
