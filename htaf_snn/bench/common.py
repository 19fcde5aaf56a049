"""What all benchmarks share: processes of their own, percentiles, what is told of the machine."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys

import numpy as np
import torch

__all__ = ["in_own_process", "machine", "percentiles", "require", "synchronize", "text_table"]


def synchronize(device: str) -> None:
    """Wait until a GPU has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Median, 20th and 80th percentile in ms."""
    low, median, high = np.percentile(np.array(seconds) * 1e3, [20, 50, 80]).round(4).tolist()
    return {"median": median, "p20": low, "p80": high}


def require(equal: bool, name: str) -> None:
    """Refuse to time what is wrong."""
    if not equal:
        raise RuntimeError(f"{name} differs from its reference; no speed is told of a wrong kernel")


def in_own_process(module: str, *arguments) -> dict:
    """What `python -m module` prints as JSON, given arguments as JSON; {"not_measured": reason} if it fails."""
    command = [sys.executable, "-W", "ignore", "-m", module, *map(json.dumps, arguments)]
    run = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
    if run.returncode:
        return {"not_measured": run.stderr.strip().splitlines()[-1]}
    return json.loads(run.stdout)


def machine(device: str) -> dict:
    """Versions and hardware."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
    }


def text_table(rows: list[list[str]]) -> str:
    """Rows in columns; shorter rows do not widen them."""
    widths = [max(len(row[i]) for row in rows if len(row) == len(rows[0])) for i in range(len(rows[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=False)).rstrip() for row in rows)
