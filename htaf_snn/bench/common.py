"""Helpers of all benchmarks: separate processes, percentiles, checks, and the description of the machine."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch


def synchronize(device: str) -> None:
    """Wait until a GPU has finished its work."""
    if device == "cuda":
        torch.cuda.synchronize()


def timed(run: Callable[[], object], device: str) -> float:
    """Return the seconds that a call takes."""
    synchronize(device)
    start = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - start


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Return the median, 20th and 80th percentile in ms."""
    low, median, high = np.percentile(np.array(seconds) * 1e3, [20, 50, 80]).round(4).tolist()
    return {"median": median, "p20": low, "p80": high}


def require(equal: bool, name: str) -> None:
    """Raise RuntimeError unless a kernel's output equals its reference's."""
    if not equal:
        raise RuntimeError(f"{name}: output differs from the reference; refusing to time it")


def in_own_process(module: str, *arguments: object) -> dict[str, Any]:
    """Return the JSON that `python -m module` prints for arguments as JSON; {"not_measured": reason} if it fails."""
    command = [sys.executable, "-W", "ignore", "-m", module, *map(json.dumps, arguments)]
    process = subprocess.run(command, capture_output=True, text=True)
    if process.returncode:
        return {"not_measured": process.stderr.strip().splitlines()[-1]}
    return json.loads(process.stdout)


def machine(device: str) -> dict[str, Any]:
    """Return versions and hardware."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
    }


def text_table(rows: list[list[str]]) -> str:
    """Return rows as aligned columns; shorter rows do not widen them."""
    widths = [max(len(row[i]) for row in rows if len(row) == len(rows[0])) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(n) for cell, n in zip(row, widths, strict=False)).rstrip() for row in rows)
