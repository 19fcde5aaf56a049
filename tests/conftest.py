"""Settings that have to be made before torch and Triton are imported, and fixtures for all tests."""

import os
import signal

# The tests' processes share the cores; a thread that spins while it waits would take one from the others.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import pytest
import torch
from covering import LARGE_PRODUCT, covering
from hypothesis import settings

# Kernels are compiled at the first call, so no example has a deadline; `examples` is for tests that take more or
# fewer than others.
# A run's examples are those of the run before, so that what fails is the change's; `search` looks for new ones.
settings.register_profile("ci", max_examples=40, deadline=None, derandomize=True)
settings.register_profile("thorough", max_examples=400, deadline=None, derandomize=True)
settings.register_profile("search", max_examples=400, deadline=None)
settings.load_profile("ci")

# Without a GPU the Triton kernels run in Triton's interpreter.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
torch.backends.cudnn.allow_tf32 = False


def pytest_collection_modifyitems(items):
    """Mark what a GPU computes where there is one, and what only a thorough run tests."""
    functions = {}
    for item in items:
        if not hasattr(item, "callspec"):
            continue
        if any(value in ("triton", "cuda") for value in item.callspec.params.values() if isinstance(value, str)):
            item.add_marker(pytest.mark.gpu)
        functions.setdefault((item.path, item.originalname), []).append(item)
    for products in functions.values():
        products = [item for item in products if not item.get_closest_marker("thorough")]
        if len(products) > LARGE_PRODUCT:
            for item in set(products) - set(covering(products)):
                item.add_marker(pytest.mark.thorough)
    if settings.get_current_profile_name() != "ci":
        for item in items:
            if getattr(item.function, "is_hypothesis_test", False) or item.get_closest_marker("hypothesis"):
                item.add_marker(pytest.mark.thorough)


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


@pytest.fixture(autouse=True)
def seeded():
    """Let a test draw the same numbers whichever tests run before it."""
    torch.manual_seed(0)


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
    """Keep the tests out of the user's cache; platformdirs asks for the variable at each call.

    The workers of a run share compiled kernels and simulated data sets.
    """
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
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


@pytest.fixture(scope="session")
def recordings(tmp_path_factory):
    """A data set in N-MNIST's layout with two classes, whose events differ in position."""
    root = tmp_path_factory.mktemp("nmnist")
    random = np.random.default_rng(0)
    for split, count in (("Train", 20), ("Test", 6)):
        for label in (0, 1):
            folder = root / split / str(label)
            folder.mkdir(parents=True)
            for i in range(count):
                events = np.empty((200, 5), np.uint8)
                events[:, :2] = random.integers(0, 17, (200, 2)) + 17 * label
                t = np.sort(random.integers(0, 300_000, 200)) | (random.integers(0, 2, 200) << 23)
                events[:, 2], events[:, 3], events[:, 4] = t >> 16, (t >> 8) & 255, t & 255
                (folder / f"{i:05}.bin").write_bytes(events.tobytes())
    return root


@pytest.fixture
def interruptible():
    """Let Ctrl-C interrupt this process and those that it starts, also where the shell has set it to be ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def workers_here():
    """Let this process do the work of studies' workers."""
    import studies

    with studies.workers_here():
        yield


@pytest.fixture
def by_programs(monkeypatch):
    """Let programs compute packed networks wherever they can, not only where they are faster."""
    monkeypatch.setattr("htaf_snn.deploy.quickest.seconds", lambda compute: 0.0)


@pytest.fixture
def backend(request):
    """Return a backend, for tests that name them; "numba's text" is that of the kernels for the CPU, run uncompiled."""
    if request.param != "numba's text":
        return request.param
    request.getfixturevalue("uncompiled")
    return "numba"


@pytest.fixture
def uncompiled(monkeypatch):
    """Run the text of the neurons' CPU kernels as plain Python, on NumPy's numbers; only what it calls is compiled."""
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
