"""Fixtures of runs."""

import pytest
from commands import run
from runs import SMALL

from htaf_snn import unregister


@pytest.fixture(autouse=True)
def unregistered():
    yield
    unregister()


@pytest.fixture
def finished(recordings, tmp_path):
    out = tmp_path / "finished"
    run("train", *SMALL, "--data-root", recordings, "--epochs", 1, "--out", out)
    return out
