"""Settings that have to be made before torch and Triton are imported, and fixtures for all tests."""

import os

# The tests' processes share the cores; a thread that spins while it waits would take one from the others.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import torch
from hypothesis import settings

# Kernels are compiled at the first call.
settings.register_profile("kernels", deadline=None)
settings.load_profile("kernels")

# Without a GPU the Triton kernels run in Triton's interpreter.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
torch.backends.cudnn.allow_tf32 = False


def pytest_collection_modifyitems(items):
    """Mark what a GPU computes where there is one."""
    for item in items:
        values = item.callspec.params.values() if hasattr(item, "callspec") else ()
        if any(value in ("triton", "cuda") for value in values if isinstance(value, str)):
            item.add_marker(pytest.mark.gpu)


@pytest.fixture
def poisoned(monkeypatch):
    """Fill new uninitialised floating-point memory with NaN, so that what a kernel leaves unwritten is seen."""

    def poisoning(create):
        def call(*args, **kwargs):
            tensor = create(*args, **kwargs)
            return tensor.fill_(torch.nan) if tensor.is_floating_point() and not tensor.requires_grad else tensor

        return call

    for owner, name in ((torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty")):
        monkeypatch.setattr(owner, name, poisoning(getattr(owner, name)))


@pytest.fixture
def registered():
    from htaf_snn import register

    with register():
        yield


@pytest.fixture(autouse=True)
def own_surrogates():
    """Forget the surrogates that a test registers."""
    from htaf_snn.surrogate import formula, specifications

    registries = specifications._CLASSES, formula.FORMULAS
    before = [dict(registry) for registry in registries]
    yield
    for registry, kept in zip(registries, before, strict=True):
        registry.clear()
        registry.update(kept)
    specifications.shared.cache_clear()


@pytest.fixture(autouse=True, scope="session")
def user_cache(tmp_path_factory):
    """Keep the tests out of the user's cache; platformdirs asks for the variable at each call."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def own_neurons():
    """Forget the neurons that a test makes."""
    from htaf_snn.functional import sequences
    from htaf_snn.neurons import NEURONS

    registries = NEURONS, sequences._STATES
    before = [dict(registry) for registry in registries]
    yield
    for registry, kept in zip(registries, before, strict=True):
        registry.clear()
        registry.update(kept)


@pytest.fixture
def by_programs(monkeypatch):
    """Let programs compute packed networks wherever they can, not only where they are faster."""
    monkeypatch.setattr("htaf_snn.deploy.quickest.seconds", lambda compute: 0.0)


@pytest.fixture
def uncompiled(monkeypatch):
    """Run the text of the neurons' CPU kernels as plain Python, on NumPy's numbers; only what it calls is compiled."""
    import numpy as np

    from htaf_snn.kernels.neuron import numba_cpu

    def rounding(function):
        # Compiled functions return Python's numbers, which would be computed with in float64.
        def call(*arguments):
            result = function(*arguments)
            is_double = any(isinstance(value, float) for value in arguments)  # as NumPy's float64 is, and no float32
            return (np.float64 if is_double else np.float32)(result) if isinstance(result, float) else result

        return call

    def plain(function):
        names = function.__globals__
        names |= {name: rounding(value) for name, value in names.items() if hasattr(value, "py_func")}
        return function

    numba_cpu._functions.cache_clear()
    monkeypatch.setattr(numba_cpu, "compiled", plain)
    yield
    numba_cpu._functions.cache_clear()
