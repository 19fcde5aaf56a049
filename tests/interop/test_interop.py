"""No library is changed but by `register`, and fully restored; `models.neuron` for every library."""

import functools
import subprocess
import sys
import textwrap
import threading
from importlib import import_module, reload

import pytest
import torch

import htaf_snn
from htaf_snn import HTAF, interop, models
from htaf_snn import nn as hnn
from htaf_snn.interop import norse, snntorch


@pytest.fixture(autouse=True)
def unregistered():
    htaf_snn.unregister()
    yield
    htaf_snn.unregister()


@pytest.mark.thorough
def test_only_register_changes_a_library_and_unregister_restores_it():
    code = """
        import sys, torch

        finders = list(sys.meta_path)
        import htaf_snn, htaf_snn.interop, htaf_snn.models
        theirs = {"snntorch", "norse", "spikingjelly", "sinabs", "neurobench"}
        assert not theirs & {name.partition(".")[0] for name in sys.modules}
        assert all(a is b for a, b in zip(finders, sys.meta_path, strict=True))

        import snntorch._neurons, snntorch.surrogate, norse.torch
        finders = list(sys.meta_path)

        def attributes():
            owners = {n: m for n, m in sys.modules.items() if n.partition(".")[0] in ("snntorch", "norse")}
            for name, module in list(owners.items()):
                owners |= {f"{name}.{key}": value for key, value in vars(module).items() if isinstance(value, type)}
            return {(name, key): value for name, owner in owners.items() for key, value in vars(owner).items()}

        def changed():
            now = attributes()
            return {key for key in untouched.keys() | now.keys() if untouched.get(key) is not now.get(key)}

        def is_of_ours(value):
            return getattr(value, "__globals__", {}).get("__name__", "").startswith("htaf_snn")

        untouched = attributes()
        assert not any(is_of_ours(value) for value in untouched.values())

        for library in htaf_snn.models.neurons.LIBRARIES:
            for spec in ("htaf", "atan", "norse.super"):
                htaf_snn.models.neuron(library, spec)
        htaf_snn.models.neuron("snntorch", "snntorch.atan")
        htaf_snn.models.neuron("snntorch", "htaf(hardness=0.3)")
        assert not changed()

        own = untouched["norse.torch.functional.threshold", "threshold"]
        thresholds = {key for key, value in untouched.items() if value is own}
        assert {key[1] for key in thresholds} == {"threshold"} and len(thresholds) >= 12
        resets = {
            ("snntorch._neurons.neurons.SpikingNeuron", "mem_reset"),
            ("snntorch._neurons.leaky.Leaky", "forward"),
        }
        for _ in range(2):
            htaf_snn.register()
            assert changed() >= thresholds | resets | {("snntorch.surrogate", "htaf")}
            assert {key[1] for key in changed()} == {"threshold", "mem_reset", "forward", "htaf"}
            htaf_snn.unregister()
            assert not changed()
        assert all(a is b for a, b in zip(finders, sys.meta_path, strict=True))
    """
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_library_that_fails_to_be_imported_leaves_the_other_unchanged(monkeypatch):
    def failing():
        raise ImportError("broken")

    monkeypatch.setattr(norse, "register", failing)
    with pytest.raises(ImportError, match="broken"):
        htaf_snn.register()
    assert not snntorch.is_registered()


def registered():
    return [library.is_registered() for library in (snntorch, norse)]


def test_a_registration_holds_until_the_last_one_is_closed():
    first, second = htaf_snn.register(), htaf_snn.register()
    first.close()
    assert registered() == [True, True]
    second.close()
    assert registered() == [False, False]


def test_a_call_without_a_block_outlives_every_block():
    with htaf_snn.register():
        htaf_snn.register()
    assert registered() == [True, True]
    with htaf_snn.register():
        pass
    assert registered() == [True, True]


def test_a_block_that_was_unregistered_leaves_a_later_registration_alone():
    with htaf_snn.register():
        htaf_snn.unregister()
        assert registered() == [False, False]
        htaf_snn.register()
    assert registered() == [True, True]


def test_blocks_of_threads_overlap():
    entered, left = threading.Event(), threading.Event()

    def hold():
        with htaf_snn.register():
            entered.set()
            left.wait(60)

    thread = threading.Thread(target=hold)
    with htaf_snn.register():
        before = registered()
        thread.start()
        entered.wait(60)
    during = registered()
    left.set()
    thread.join()
    assert (before, during, registered()) == ([True, True], [True, True], [False, False])


def test_the_originals_outlive_a_reload():
    neurons, threshold = import_module("snntorch._neurons"), import_module("norse.torch.functional.threshold")

    def originals():
        return neurons.SpikingNeuron.mem_reset, neurons.Leaky.forward, neurons.RLeaky.forward, threshold.threshold

    before = originals()
    htaf_snn.register()
    reload(snntorch)
    reload(norse)
    assert registered() == [True, True]
    htaf_snn.register()
    htaf_snn.unregister()
    assert originals() == before and not hasattr(import_module("snntorch.surrogate"), "htaf")


def test_functions_that_others_wrapped_are_not_taken_for_registered(monkeypatch):
    def wrapped(function):
        return functools.wraps(function)(lambda *args, **kwargs: function(*args, **kwargs))

    neuron, threshold = import_module("snntorch").Leaky, import_module("norse.torch.functional.threshold")
    monkeypatch.setattr(neuron, "mem_reset", wrapped(neuron.mem_reset))
    monkeypatch.setattr(threshold, "threshold", wrapped(threshold.threshold))
    with pytest.raises(RuntimeError, match="hardness: below 1"):
        models.neuron("snntorch", "htaf(hardness=0.3)")(torch.rand(3, 2, 4))
    with pytest.raises(RuntimeError, match="Norse does not know"):
        models.neuron("norse")(torch.rand(3, 2, 4))


@pytest.mark.parametrize(
    ("convert", "wrong", "message"),
    [
        (
            interop.to_snntorch,
            hnn.LIF(),
            r"layer: expected one of htaf_snn\.nn's Alpha, .*, got htaf_snn\.nn\.spiking\.LIF$",
        ),
        (
            interop.to_norse,
            hnn.Leaky(0.9),
            r"layer: expected one of htaf_snn\.nn's IAF, .*, got htaf_snn\.nn\.spiking\.Leaky$",
        ),
        (
            interop.from_snntorch,
            hnn.Leaky(0.9),
            r"neuron: expected one of snntorch's Alpha, .*, got htaf_snn\.nn\.spiking\.Leaky$",
        ),
        (
            interop.from_norse,
            hnn.LIF(),
            r"neuron: expected one of norse\.torch's IAF, .*, got htaf_snn\.nn\.spiking\.LIF$",
        ),
    ],
)
def test_a_neuron_of_another_class_is_refused_by_its_full_name(convert, wrong, message):
    with pytest.raises(TypeError, match=message):
        convert(wrong)


# -- models.neuron --


@pytest.mark.parametrize("library", ["snntorch", "norse", "fused"])
def test_neurons_of_every_library_train(library):
    layer, x = models.neuron(library), torch.nn.Linear(4, 4)
    with htaf_snn.register():
        spikes, _ = layer(x(torch.rand(6, 2, 4)))
    spikes.sum().backward()
    assert spikes.shape == (6, 2, 4) and set(spikes.unique().tolist()) <= {0.0, 1.0} and x.weight.grad.any()


def test_an_unknown_library_is_refused():
    with pytest.raises(ValueError, match="library: expected one of fused, snntorch, norse, got 'brian'"):
        models.neuron("brian")


@pytest.mark.parametrize("library", ["snntorch", "norse"])
def test_a_library_that_is_not_installed_is_named_with_the_remedy(library, monkeypatch):
    monkeypatch.setattr(import_module("htaf_snn.models.neurons"), "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=f"library: {library} is not installed; pip install {library}"):
        models.neuron(library)
    assert models.neuron("fused")(torch.rand(3, 2, 4))[0].shape == (3, 2, 4)


@pytest.mark.parametrize(
    ("surrogate", "message"),
    [
        ("htaf(hardness=0.3)", r"expected hardness 1 and plain numbers for Norse's neurons, got HTAF\(.*hardness=0.3"),
        (HTAF(alpha=torch.ones(3)), "expected hardness 1 and plain numbers for Norse's neurons"),
        (HTAF(learn=["alpha"]), "expected hardness 1 and plain numbers for Norse's neurons"),
        ("snntorch.atan", "expected one of htaf-snn or Norse for Norse's neurons"),
        (torch.sigmoid, "expected one of htaf-snn or Norse for Norse's neurons"),
    ],
)
def test_a_surrogate_that_norse_cannot_use_is_refused(surrogate, message):
    with pytest.raises(ValueError, match=message):
        models.neuron("norse", surrogate)


@pytest.mark.parametrize("library", ["snntorch", "norse", "fused"])
@pytest.mark.parametrize(
    "surrogate", ["snntorch.LSO", "norse.heaviside", lambda x: x > 0, lambda x: torch.sign(x.detach())]
)
def test_a_callable_that_fails_or_has_no_gradient_is_refused(library, surrogate):
    with pytest.raises(ValueError, match="surrogate: expected one that can be called and has a gradient, got "):
        models.neuron(library, surrogate)


def test_a_tensor_of_parameters_need_not_fit_a_trial():
    surrogate = HTAF(alpha=torch.tensor([0.5, 1.0, 2.0]))
    x = torch.rand(4, 2, 3)
    assert torch.equal(models.neuron("snntorch", surrogate)(x)[0], models.neuron("fused", surrogate)(x)[0])


def test_a_neuron_is_made_without_gradients_enabled():
    with torch.no_grad():
        assert models.neuron("snntorch", "snntorch.atan")(torch.rand(3, 2, 4))[0].shape == (3, 2, 4)
    assert interop.from_snntorch(models.neuron("snntorch", "snntorch.atan").neuron).beta == pytest.approx(0.9)


def test_a_missing_neurobench_is_named_with_the_remedy(monkeypatch):
    interop.neurobench._model_class.cache_clear()
    monkeypatch.setitem(sys.modules, "neurobench.models", None)
    with pytest.raises(ImportError, match=r'^neurobench.* is not installed; pip install ".\[neurobench\]"'):
        interop.to_neurobench(torch.nn.Identity())
