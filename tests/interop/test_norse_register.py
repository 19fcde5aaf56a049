"""`register` and Norse: what it rebinds and restores, and Norse's neurons over time while it holds."""

import importlib
import subprocess
import sys
import textwrap

import norse.torch as norse
import pytest
import torch
from norse_names import MODULES, NORSE_METHODS, ORIGINAL

import htaf_snn
from htaf_snn import interop, models, surrogate
from htaf_snn.interop import norse as interop_norse
from htaf_snn.interop import snntorch as interop_snntorch
from htaf_snn.models.neurons import over_time


@pytest.fixture(autouse=True)
def unregistered():
    htaf_snn.unregister()
    yield
    htaf_snn.unregister()


# -- register and unregister --


def bound():
    """The different functions that Norse's modules have as `threshold`."""
    return {module.threshold for module in MODULES}


def test_register_rebinds_every_module_and_unregister_restores_it():
    assert bound() == ORIGINAL
    htaf_snn.register()
    (extended,) = bound()
    assert extended not in ORIGINAL
    htaf_snn.register()
    assert bound() == {extended}
    htaf_snn.unregister()
    htaf_snn.unregister()
    assert bound() == ORIGINAL


def test_sign_takes_the_methods_too():
    with htaf_snn.register():
        assert MODULES[0].sign(torch.tensor([-1.0, 1.0]), "htaf", 1.0).tolist() == [-1, 1]


def test_a_context_restores_what_was_before():
    with htaf_snn.register():
        with htaf_snn.register():
            pass
        assert interop_norse.is_registered() and interop_snntorch.is_registered()
        htaf_snn.unregister()
    assert bound() == ORIGINAL and not interop_snntorch.is_registered()
    htaf_snn.register()
    with pytest.raises(KeyError), htaf_snn.register():
        raise KeyError
    assert not ORIGINAL & bound()
    with htaf_snn.register():
        htaf_snn.unregister()
    assert bound() == ORIGINAL


def test_modules_of_others_imported_before_and_during_are_rebound_and_restored(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("norse_user_before", "norse_user_during"):
        text = "from norse.torch.functional.threshold import threshold as fire\n"
        (tmp_path / f"{name}.py").write_text(text)
    before = importlib.import_module("norse_user_before")
    assert before.fire in ORIGINAL
    htaf_snn.register()
    during = importlib.import_module("norse_user_during")
    assert {before.fire, during.fire} == bound() != ORIGINAL
    htaf_snn.unregister()
    assert {before.fire, during.fire} == ORIGINAL
    for name in ("norse_user_before", "norse_user_during"):
        monkeypatch.delitem(sys.modules, name)


def test_a_second_register_rebinds_what_took_hold_of_the_original_since():
    htaf_snn.register()
    extended = MODULES[4].threshold
    (MODULES[4].threshold,) = ORIGINAL
    htaf_snn.register()
    assert MODULES[4].threshold is extended


def test_each_half_works_without_the_other(monkeypatch):
    monkeypatch.setattr(interop_snntorch, "is_installed", lambda: False)
    with htaf_snn.register():
        assert interop_norse.is_registered() and not interop_snntorch.is_registered()
    monkeypatch.undo()
    monkeypatch.setattr(interop_norse, "is_installed", lambda: False)
    with htaf_snn.register():
        assert interop_snntorch.is_registered() and not interop_norse.is_registered()
    monkeypatch.setattr(interop_snntorch, "is_installed", lambda: False)
    with pytest.raises(ImportError, match="pip install snntorch"):
        interop.register()


def test_installed_means_importable(monkeypatch):
    assert interop_norse.is_installed() and interop_snntorch.is_installed()
    monkeypatch.setitem(sys.modules, "norse", None)
    monkeypatch.setitem(sys.modules, "snntorch", None)
    assert not interop_norse.is_installed() and not interop_snntorch.is_installed()


@pytest.mark.thorough
def test_register_in_a_fresh_process_imports_norse_and_serves_neurons_made_before():
    code = """
        import htaf_snn
        htaf_snn.unregister()
        htaf_snn.register()
        import torch
        from norse.torch import LIF, LIFParameters
        spikes, _ = LIF(LIFParameters(method="htaf", alpha=torch.tensor(0.5)))(20 * torch.rand(3, 2, 4))
        assert spikes.requires_grad
    """
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("alpha", [1.5, [0.5, 1.0, 2.0]])
def test_a_learnable_alpha_stays_learnable(alpha):
    with htaf_snn.register():
        p = norse.LIFParameters(method="htaf(beta=2)", alpha=torch.tensor(alpha, requires_grad=True))
        fused = interop.from_norse(norse.LIF(p))
        x = 5 * torch.rand(6, 2, 3)
        norse.LIF(p)(x)[0].sum().backward()
        fused(x)[0].sum().backward()
        (learned,) = fused.parameters()
        # The fused neuron learns the logarithm, whose gradient is alpha times that of alpha.
        torch.testing.assert_close(learned.grad, p.alpha.grad * p.alpha.detach())
        assert learned.grad.any() and fused.surrogate.beta == 2.0


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"method": "atan", "alpha": torch.tensor(1.0, requires_grad=True)}, "alpha: expected a number for 'atan'"),
        ({"method": "atan", "alpha": torch.ones(3)}, r"alpha: expected a number for 'atan', got .* of shape \(3,\)"),
        ({"method": "tanh", "alpha": torch.tensor(1.0, requires_grad=True)}, "alpha: expected .* 'tanh' gives none"),
        (
            {"method": "htaf"},
            r"alpha: expected a value chosen for 'htaf', got Norse's default of 100; write htaf\(alpha",
        ),
        ({"method": "adjoint"}, "method: expected one of approx_sign, .*, got 'adjoint'"),
    ],
)
def test_what_a_fused_neuron_would_lose_is_refused(parameters, message):
    with htaf_snn.register(), pytest.raises(ValueError, match=message):
        interop.from_norse(norse.LIF(norse.LIFParameters(**parameters)))


def test_recorded_states_are_refused():
    with pytest.raises(ValueError, match="record_states: expected False"):
        interop.from_norse(norse.LIF(record_states=True))


@pytest.mark.parametrize("neuron", [norse.LIF, lambda p: norse.LIFAdExCell(norse.LIFAdExParameters(method=p.method))])
@pytest.mark.parametrize("method", ["htaf", "htaf(beta=8)", "atan"])
def test_the_default_alpha_of_norse_is_refused_by_what_to_write(neuron, method):
    name = method.partition("(")[0]
    with htaf_snn.register():
        message = rf"alpha: expected a value chosen for '{name}'.*{name}\(alpha=1.0\) as method.*{name}\(alpha=100\)"
        with pytest.raises(ValueError, match=message):
            neuron(norse.LIFParameters(method=method))(torch.rand(2, 3, 4))
        spikes, _ = norse.LIF(norse.LIFParameters(method=f"{name}(alpha=100)"))(torch.rand(2, 3, 4))
        assert spikes.shape == (2, 3, 4)


def test_a_method_that_norse_lacks_is_not_offered():
    with htaf_snn.register(), pytest.raises(ValueError, match=r"method: expected one of .*, got 'adjoint'") as caught:
        norse.LIFCell(norse.LIFParameters(method="adjoint"))(torch.rand(2, 3))
    assert "adjoint," not in str(caught.value)


# -- over a sequence --


@pytest.mark.parametrize("name", surrogate.names())
def test_lif_over_time_computes_every_surrogate_as_it_is_while_registered(name):
    own = surrogate.resolve(name)
    layer = models.neuron("norse", own)
    with pytest.raises(RuntimeError, match=r"Norse does not know '.*\(.*'; call htaf_snn.register\(\) first"):
        layer(torch.ones(3, 2, 4))
    x = (8 * torch.rand(6, 2, 4)).requires_grad_()
    v = i = torch.zeros(2, 4)
    expected = []
    for current in x:
        i = i + current
        v, i = v + 0.1 * (i - v), i - 0.2 * i
        z = own(v - 0.3)
        v = (1 - z) * v
        expected.append(z)
    (grad,) = torch.autograd.grad(torch.stack(expected).sum(), x)
    with htaf_snn.register():
        spikes, _ = layer(x)
        assert torch.equal(spikes, torch.stack(expected)) and 0 < spikes.mean() < 1
        torch.testing.assert_close(torch.autograd.grad(spikes.sum(), x)[0], grad)
    with pytest.raises(RuntimeError, match="Norse does not know"):
        layer(x)


@pytest.mark.parametrize("name", NORSE_METHODS)
def test_lif_over_time_needs_no_register_for_norse_s_own(name):
    neuron = norse.LIF(norse.LIFParameters(method=name, alpha=torch.tensor(1.0), v_th=torch.tensor(0.3)))
    x = 8 * torch.rand(6, 2, 4)
    layer, (expected, _) = over_time(neuron), neuron(x)
    assert torch.equal(layer(x)[0], expected) and bound() == ORIGINAL
