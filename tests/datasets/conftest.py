"""Fixtures of data sets."""

import threading

import pytest
from servers import Server

from neuromorphic_datasets import _download


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(_download, "_BACKOFF_S", 0.001)
    running = Server()
    thread = threading.Thread(target=running.serve_forever, args=(0.01,))
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


@pytest.fixture
def folder(tmp_path):
    """Two classes of four recordings of (1, 2, 10, 1) and (3, 4, 20, 0), without names of columns."""
    for label in "ab":
        (tmp_path / "mine" / label).mkdir(parents=True)
        for number in range(4):
            (tmp_path / "mine" / label / f"{number}.csv").write_text("1,2,10,1\n3,4,20,0\n")
    return tmp_path / "mine"
