"""The choice of a backend; one asked for by name is never replaced silently."""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import torch

NAMES = ("auto", "torch", "numba", "triton")
_INSTALLED = {name: find_spec(name) is not None for name in ("numba", "triton")}
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def _reason(backend: str) -> str:
    if backend in _INSTALLED and not _INSTALLED[backend]:
        return f"it is not installed; pip install {backend}"
    if backend == "triton" and not (_INTERPRETED or torch.cuda.is_available()):
        return "no CUDA GPU is available"
    return "available"


def backends() -> dict[str, str]:
    """Return for each backend of the fused kernels "available", or the reason why it is not.

    Returns:
        By name: "torch", which runs everywhere; "numba" for CPUs; "triton" for CUDA GPUs, in float32.

    Example:
        >>> backends()["torch"]
        'available'
    """
    return {name: _reason(name) for name in ("torch", "numba", "triton")}


def check_name(backend: str) -> None:
    """Raise ValueError unless a backend has that name."""
    if backend not in NAMES:
        remedy = "; for a GPU write 'auto' or 'triton'" if backend in ("gpu", "cuda") else ""
        raise ValueError(f"backend: expected one of {', '.join(NAMES)}, got {backend!r}{remedy}")


def choose(backend: str, device: torch.device, dtype: torch.dtype) -> str:
    """Return the backend for tensors on a device with states of a dtype.

    Raises:
        ValueError: if the name is unknown, or the backend does not support the device or dtype.
        RuntimeError: if it is not available.
    """
    check_name(backend)
    if backend == "auto":
        best = {"cpu": "numba", "cuda": "triton"}.get(device.type, "torch")
        return best if _reason(best) == "available" and _supports(best, device, dtype) else "torch"
    if _reason(backend) != "available":
        raise RuntimeError(f"backend {backend!r} is not available: {_reason(backend)}")
    if not _supports(backend, device, dtype):
        raise ValueError(f"backend: {backend!r} cannot compute {dtype} on {device.type}; use auto")
    return backend


def load(backend: str, package: str | None) -> ModuleType:
    """Return the kernels of an operation, the folder `package`, for "numba" or "triton"."""
    return import_module({"numba": ".numba_cpu", "triton": ".triton_gpu"}[backend], package)


def _supports(backend: str, device: torch.device, dtype: torch.dtype) -> bool:
    if backend == "numba":
        return device.type == "cpu"
    if backend == "triton":
        return dtype == torch.float32 and (device.type == "cuda" or (_INTERPRETED and device.type == "cpu"))
    return True
