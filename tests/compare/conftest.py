"""Fixtures of studies."""

import pytest
import torch
from studies import SMALL, SURROGATES

from htaf_snn.compare import Study


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study of three surrogates, two slopes and three seeds, run by two workers."""
    study = Study(tmp_path_factory.mktemp("study"), surrogates=SURROGATES, slopes=[0.5, 2.0], seeds=3, **SMALL)
    assert study.counts() == {"waiting": 18, "running": 0, "finished": 0, "failed": 0}
    assert study.run(workers=2, progress=False) == {"waiting": 0, "running": 0, "finished": 18, "failed": 0}
    study.report()
    return study


@pytest.fixture
def one_thread():
    """Results depend on the number of threads; workers have one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
