"""Without a GPU the Triton kernels run in Triton's interpreter, which has to be known before Triton is imported."""

import os

import pytest
import torch
from hypothesis import settings

# Kernels are compiled at the first call.
settings.register_profile("kernels", deadline=None)
settings.load_profile("kernels")

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture
def poisoned(monkeypatch):
    """Fill new uninitialised floating-point memory with NaN, so that what a kernel leaves unwritten is seen."""

    def poisoning(create):
        def call(*args, **kwargs):
            tensor = create(*args, **kwargs)
            return tensor.fill_(torch.nan) if tensor.is_floating_point() else tensor

        return call

    for owner, name in ((torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty")):
        monkeypatch.setattr(owner, name, poisoning(getattr(owner, name)))


@pytest.fixture(autouse=True, scope="session")
def user_cache(tmp_path_factory):
    """Keep the tests out of the user's cache; platformdirs asks for the variable at each call."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
