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
tensors = [torch.ones({size} << 18) for _ in range(256 // {size})]
del tensors
print(kept, held() - before)
"""


def held(keep, size):
    """Return whether the C library took the option, and how many MiB more are held after 256 MiB are freed."""
    run = subprocess.run(
        [sys.executable, "-c", HELD.format(keep=keep, size=size)], capture_output=True, text=True, check=True
    )
    kept, more = run.stdout.split()
    return kept == "True", int(more)


@pytest.mark.thorough
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("size", [4, 64])
def test_freed_memory_is_kept(size):
    """Of blocks in the heap, and of those that glibc would always give a mapping of their own."""
    kept, more = held(True, size)
    if not kept:
        pytest.skip("the C library is not glibc")
    assert more > 200 > held(False, size)[1]


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
