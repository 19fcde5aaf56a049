"""Memory of our own processes."""

import subprocess
import sys

import pytest

from htaf_snn import _memory

HELD = """
import resource
from pathlib import Path
import torch
from htaf_snn import _memory
kept = {keep} and _memory.keep_freed()
def held():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() >> 20
before = held()
tensors = [torch.ones(1 << 20) for _ in range(64)]  # of 4 MiB
del tensors
print(kept, held() - before)
"""


def held(keep):
    """Return whether the C library took the option, and how many MiB more are held after 256 MiB are freed."""
    run = subprocess.run([sys.executable, "-c", HELD.format(keep=keep)], capture_output=True, text=True, check=True)
    kept, size = run.stdout.split()
    return kept == "True", int(size)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_freed_memory_is_kept():
    kept, size = held(keep=True)
    if not kept:
        pytest.skip("the C library is not glibc")
    assert size > 200 > held(keep=False)[1]


def test_other_c_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(_memory.ctypes, "CDLL", lambda name: object())
    assert not _memory.keep_freed()


def test_commands_keep_freed_memory(monkeypatch):
    from htaf_snn.cli import _app

    calls = []
    monkeypatch.setattr(_app, "keep_freed", lambda: calls.append("kept"))
    with pytest.raises(SystemExit):
        _app.main(["--version"])
    assert calls == ["kept"]
