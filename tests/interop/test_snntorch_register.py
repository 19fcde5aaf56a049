"""snnTorch with `register`: dtypes, copies, compilation, saving, and what is restored."""

import copy
import subprocess
import sys
import textwrap

import pytest
import snntorch as snn
import torch
from snntorch import utils

import htaf_snn
from htaf_snn import HTAF, models, surrogate
from htaf_snn import nn as hnn
from htaf_snn.hardening import Anneal
from htaf_snn.interop import snntorch as interop_snntorch
from htaf_snn.interop import to_snntorch
from htaf_snn.surrogate import Rescaled

HARDNESSES = [0.0, 0.3, 1.0]


# -- life of a model --


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("hardness", HARDNESSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_spikes_and_resets_keep_the_dtype(dtype, hardness):
    neuron = snn.Leaky(0.9, spike_grad=HTAF(hardness=hardness)).to(dtype)
    spikes, potential = neuron(torch.ones(2, 3, dtype=dtype), torch.ones(2, 3, dtype=dtype))
    assert {spikes.dtype, potential.dtype, neuron.reset.dtype} == {dtype}


def test_states_are_reset_by_utils_and_by_the_newer_walk_over_modules():
    neuron = snn.Leaky(0.9, spike_grad=HTAF(learn=("alpha", "beta")), init_hidden=True)
    net = torch.nn.Sequential(torch.nn.Linear(3, 3), neuron)
    x = 3 * torch.rand(2, 3)
    first = net(x)
    net(x)
    utils.reset(net)
    assert torch.equal(net(x), first)
    for module in net.modules():  # snnTorch's development branch
        if hasattr(module, "reset_mem"):
            module.reset_mem()
    assert torch.equal(net(x), first)


def test_a_deep_copy_has_its_own_hardness():
    neuron = snn.Leaky(0.9, spike_grad=HTAF(hardness=0.0))
    twin = copy.deepcopy(neuron)
    twin.spike_grad.hardness = 1.0
    step = torch.full((1, 1), 1.5), torch.full((1, 1), 0.5)
    assert neuron.spike_grad.hardness == 0
    assert twin(*step)[0].item() == 1 != neuron(*step)[0].item()


@pytest.mark.thorough
@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("hardness", HARDNESSES)
def test_compiles_to_one_graph(hardness):
    torch._dynamo.reset()
    try:
        torch.compile(snn.Leaky(0.9), fullgraph=True, backend="aot_eager")(torch.ones(2, 3), torch.zeros(2, 3))
    except torch._dynamo.exc.Unsupported as error:
        pytest.skip(f"snnTorch's own Leaky does not compile with torch {torch.__version__}: {error.args[0][:40]}")
    neuron = snn.Leaky(0.9, spike_grad=HTAF(hardness=hardness))
    compiled = torch.compile(copy.deepcopy(neuron), fullgraph=True, backend="aot_eager")
    results = []
    for run in (neuron, compiled):
        x = torch.linspace(0, 4, 6).view(2, 3).requires_grad_()
        v = torch.zeros(2, 3)
        for _ in range(2):
            s, v = run(x, v)
        s.sum().backward()
        results.append((s.detach(), v.detach(), x.grad))
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected)


def python(code, *arguments):
    """Run code in a fresh interpreter; it must succeed."""
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.thorough
@pytest.mark.usefixtures("registered")
def test_a_saved_model_works_in_a_process_that_only_registers_and_loads_it(tmp_path):
    torch.manual_seed(5)
    for hardness in HARDNESSES:
        neuron = snn.Leaky(0.9, spike_grad=HTAF(beta=8.0, hardness=hardness), init_hidden=True, output=True)
        net = torch.nn.Sequential(torch.nn.Linear(3, 4), neuron)
        x = 4 * torch.rand(5, 2, 3)
        torch.save(net, tmp_path / f"{hardness}.pt")
        expected = [net(step) for step in x]
        torch.save((x, expected), tmp_path / f"{hardness}.values")
    code = """
        import sys, torch, htaf_snn
        htaf_snn.register()
        for hardness in (0.0, 0.3, 1.0):
            net = torch.load(f"{sys.argv[1]}/{hardness}.pt", weights_only=False)
            x, expected = torch.load(f"{sys.argv[1]}/{hardness}.values")
            for step, (spikes, potential) in zip(x, expected):
                s, v = net(step)
                assert torch.equal(s, spikes) and torch.equal(v, potential), hardness
    """
    python(code, tmp_path)


@pytest.mark.thorough
def test_import_loads_no_host_and_a_host_imported_before_register_resets_hard():
    code = """
        import sys
        import htaf_snn
        assert not {"snntorch", "norse"} & {name.partition(".")[0] for name in sys.modules}
        import torch, snntorch as snn, inspect
        neuron = snn.Leaky(1.0, spike_grad=htaf_snn.HTAF(hardness=0.0), init_hidden=True, output=True)
        with htaf_snn.register():
            for _ in range(2):
                _, v = neuron(torch.full((1, 1), 1.5))
        assert v.item() == 2.0, v
        package = sys.modules["snntorch._neurons"]
        assert {type(package.__loader__), type(package.__spec__.loader)} == {type(torch.__loader__)}
        assert "Leaky" in inspect.getsource(package)
    """
    python(code)


# -- register --


def test_register_makes_htaf_exist_until_unregister():
    htaf_snn.unregister()
    assert not hasattr(snn.surrogate, "htaf")
    htaf_snn.register()
    htaf_snn.register()
    made = snn.surrogate.htaf(0.5, beta=8.0, hardness=0.0)
    assert isinstance(made, HTAF) and made.numbers() == {"hardness": 0, "alpha": 0.5, "beta": 8, "normalized": False}
    assert snn.surrogate.htaf().values() == {"alpha": 1.0, "beta": 4.0, "normalized": False}
    htaf_snn.unregister()
    htaf_snn.unregister()
    assert not hasattr(snn.surrogate, "htaf")


def test_unregister_restores_an_htaf_that_snntorch_itself_has(monkeypatch):
    monkeypatch.setattr(snn.surrogate, "htaf", snn.surrogate.atan, raising=False)
    with htaf_snn.register():
        assert snn.surrogate.htaf is interop_snntorch.htaf
    assert snn.surrogate.htaf is snn.surrogate.atan


@pytest.mark.parametrize("cls", [HTAF, surrogate.ATan])
def test_a_class_given_as_spike_grad_is_answered_with_what_to_write(cls):
    with pytest.raises((TypeError, ValueError), match=rf"a neuron takes an instance, spike_grad={cls.__name__}\(\)"):
        snn.Leaky(0.9, spike_grad=cls)(torch.rand(2, 3), torch.zeros(2, 3))


@pytest.mark.parametrize(("learn", "names"), [(("alpha",), {"log_alpha"}), (["beta"], {"log_beta"}), ((), set())])
def test_parameters_are_learned_by_name(learn, names):
    step = HTAF(alpha=2.0, beta=3.0, learn=learn)
    assert {name for name, _ in step.named_parameters()} == names
    values = [torch.as_tensor(value).item() for value in step.values().values()]
    assert values == pytest.approx([2.0, 3.0, 0.0])
    assert HTAF(learn=("alpha", "beta")).learn == ("alpha", "beta")
    for wrong in ("alpha", ["gamma"]):
        with pytest.raises(ValueError, match=r"learn: expected names of alpha, beta, as in \['alpha'\]"):
            HTAF(learn=wrong)


# -- over a sequence --


@pytest.mark.parametrize("hardness", [0.0, 0.3])
def test_leaky_over_time_below_hardness_1_runs_registered_only_and_then_resets_hard(hardness):
    spec = f"htaf(hardness={hardness})"
    torch.manual_seed(6)
    layer, x = models.neuron("snntorch", spec, "leaky(beta=0.75)"), 3 * torch.rand(6, 2, 3)
    with pytest.raises(RuntimeError, match=r"hardness: below 1 .* call htaf_snn.register\(\)"):
        layer(x)
    with htaf_snn.register():
        y, _ = layer(x)
    with pytest.raises(RuntimeError, match="hardness: below 1"):
        layer(x)
    torch.testing.assert_close(y, hnn.Leaky(0.75, surrogate=spec)(x)[0])
    mem, expected = torch.zeros_like(x[0]), []
    for current in x:
        mem = 0.75 * mem + current - (mem > 1).to(x)
        expected.append(layer.neuron.spike_grad(mem - 1))
    assert torch.equal(y, torch.stack(expected)) and ((y > 0.02) & (y < 0.98)).any() and (mem > 1).any()


@pytest.mark.parametrize("delay", [True, False])
def test_a_layer_below_hardness_1_is_converted_registered_only(delay):
    layer = hnn.Leaky(0.75, surrogate="htaf(hardness=0.3)", reset_delay=delay)
    with pytest.raises(RuntimeError, match=r"hardness: below 1 .* call htaf_snn.register\(\)"):
        to_snntorch(layer)
    with htaf_snn.register():
        neuron, x, mem = to_snntorch(layer), 3 * torch.rand(6, 2, 3), torch.zeros(2, 3)
        for current, expected in zip(x, layer(x)[0], strict=True):
            spikes, mem = neuron(current, mem)
            torch.testing.assert_close(spikes, expected)


@pytest.mark.parametrize("hardness", [0.3, 1.0])
@pytest.mark.parametrize("delay", [True, False])
def test_a_rescaled_surrogate_keeps_its_factors(delay, hardness):
    rescaled = Rescaled(HTAF(hardness=hardness), stretch=3.0, gain=0.5)
    x = (2 * torch.rand(6, 2, 3)).requires_grad_()
    layer = hnn.Leaky(0.9, surrogate=rescaled, reset_delay=delay)
    expected = layer(x)[0]
    (grad,) = torch.autograd.grad(expected.sum(), x)
    with htaf_snn.register():
        neuron, mem, spikes = to_snntorch(layer), torch.zeros(2, 3), []
        for current in x:
            spike, mem = neuron(current, mem)
            spikes.append(spike)
        results = [torch.stack(spikes), *([models.neuron("snntorch", rescaled)(x)[0]] if delay else [])]
    for result in results:
        torch.testing.assert_close(result, expected)
        torch.testing.assert_close(torch.autograd.grad(result.sum(), x)[0], grad)
    if hardness < 1:
        with pytest.raises(RuntimeError, match="hardness: below 1"):
            models.neuron("snntorch", rescaled)(x)


@pytest.mark.parametrize("surrogate", ["htaf", "snntorch.atan", torch.sigmoid])
def test_leaky_over_time_runs_unregistered_at_hardness_1(surrogate):
    assert models.neuron("snntorch", surrogate)(torch.rand(3, 2, 4))[0].shape == (3, 2, 4)


def test_another_s_htaf_in_snntorch_is_not_taken_for_hard_resets(monkeypatch):
    monkeypatch.setattr(snn.surrogate, "htaf", snn.surrogate.atan, raising=False)
    with pytest.raises(RuntimeError, match="hardness: below 1"):
        models.neuron("snntorch", "htaf(hardness=0.3)")(torch.rand(3, 2, 4))


@pytest.mark.usefixtures("registered")
def test_annealing_the_hardness_compiles_nothing_again():
    layer, x, graphs = models.neuron("snntorch"), 2 * torch.rand(3, 2, 4), []
    anneal = Anneal(layer, "hardness", start=0.1, end=0.9, steps=20)
    torch._dynamo.reset()
    compiled = torch.compile(layer, backend=lambda graph, inputs: graphs.append(graph) or graph)
    layer(x)  # snnTorch's neuron keeps its last potential, whose shape the graph depends on
    for _ in range(5):
        torch.testing.assert_close(compiled(x), layer(x))
        anneal.step()
    assert len(graphs) == 1
