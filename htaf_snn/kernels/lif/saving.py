"""The membrane trace in a dtype of fewer bits."""

import torch
from torch import Tensor


def narrowed(trace: Tensor, threshold: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the trace in a narrower dtype, on the same side of the threshold, as the backward pass resets by it."""
    if dtype == trace.dtype:
        return trace
    saved = trace.to(dtype)
    fired = trace > threshold
    wrong = (saved.to(trace.dtype) > threshold) != fired
    direction = torch.where(fired, torch.inf, -torch.inf).to(dtype)
    return torch.where(wrong, torch.nextafter(saved, direction), saved)
