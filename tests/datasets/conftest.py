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
