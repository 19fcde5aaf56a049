"""`fuse`: networks of other libraries over sequences, with the same parameters."""

import copy
import warnings
from collections import OrderedDict

import norse.torch as norse
import pytest
import snntorch as snn
import torch
from torch import nn

import htaf_snn
from htaf_snn import HTAF, fuse
from htaf_snn import nn as hnn

STEPS, BATCH = 12, 6


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def stepped(net, x):
    """Return the spikes of a stepped network of snnTorch, from rest."""
    for module in net.modules():
        if isinstance(module, snn.SpikingNeuron):
            module.reset_mem()
    outputs = [net(step) for step in x]
    return torch.stack([output[0] if isinstance(output, tuple) else output for output in outputs])


def sequential_state(net, x):
    """Return the output of a SequentialState, which takes sequences or single time steps."""
    if any(hasattr(module, "record_states") for module in net.modules()):
        return net(x)[0]
    state, outputs = None, []
    for step in x:
        output, state = net(step, state)
        outputs.append(output)
    return torch.stack(outputs)


# -- networks of the tutorials, of other sizes --


def fully_connected():
    """Tutorial 5 of snnTorch."""
    return nn.Sequential(
        nn.Linear(20, 30),
        snn.Leaky(beta=0.95, init_hidden=True),
        nn.Linear(30, 10),
        snn.Leaky(beta=0.95, init_hidden=True, output=True),
    )


def convolutional():
    """Tutorial 6 of snnTorch."""
    grad = snn.surrogate.fast_sigmoid(slope=25)
    return nn.Sequential(
        nn.Conv2d(1, 4, 5),
        snn.Leaky(beta=0.5, spike_grad=grad, init_hidden=True),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 8, 2),
        snn.Leaky(beta=0.5, spike_grad=grad, init_hidden=True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(8, 10),
        snn.Leaky(beta=0.5, spike_grad=grad, init_hidden=True, output=True),
    )


def learnable():
    """One neuron of each kind, in chains within chains, with all that can be learned and a surrogate that learns."""
    shared = HTAF(alpha=0.8, learn=("beta",))
    options = {"spike_grad": shared, "init_hidden": True, "learn_threshold": True, "threshold": 0.3}
    hidden = nn.Sequential(
        OrderedDict(
            fc=nn.Linear(30, 24),
            synaptic=snn.Synaptic(torch.full((24,), 0.7), 0.6, learn_alpha=True, learn_beta=True, **options),
            inner=nn.Sequential(nn.Linear(24, 16), snn.Alpha(0.9, 0.6, **options), nn.Dropout(0.0)),
        )
    )
    return nn.Sequential(
        nn.Linear(20, 30),
        snn.Leaky(0.9, learn_beta=True, graded_spikes_factor=1.5, learn_graded_spikes_factor=True, **options),
        hidden,
        nn.Linear(16, 10),
        snn.Lapicque(R=1.0, C=2.0, **options),
    )


def of_norse():
    p = {"method": "super", "alpha": torch.tensor(1.0)}
    return norse.SequentialState(
        nn.Linear(20, 30),
        norse.LIF(norse.LIFParameters(v_th=nn.Parameter(torch.full((30,), 0.3)), **p)),
        norse.SequentialState(
            nn.Linear(30, 24), norse.LSNN(norse.LSNNParameters(v_th=torch.tensor(0.2), beta=torch.tensor(0.1), **p))
        ),
        nn.Linear(24, 10),
        norse.LI(),
    )


def of_norse_cells():
    p = norse.LIFParameters(method="super", alpha=torch.tensor(1.0), v_th=torch.tensor(0.3))
    return norse.SequentialState(
        nn.Conv2d(1, 4, 5), norse.LIFCell(p), nn.MaxPool2d(3), nn.Flatten(), nn.Linear(16, 10), norse.LICell()
    )


def of_norse_lifted():
    p = norse.LIFParameters(method="super", alpha=torch.tensor(1.0), v_th=torch.tensor(0.3))
    lifted = nn.Sequential(nn.Conv2d(1, 4, 5), nn.ReLU())
    return norse.SequentialState(
        norse.Lift(lifted),
        norse.LIF(p),
        norse.Lift(nn.MaxPool2d(2)),
        nn.Flatten(3),
        nn.ReLU(),
        nn.Flatten(2, 3),
        nn.Sequential(nn.Linear(36, 12), nn.Tanh()),
        nn.Linear(12, 10),
        norse.LIF(p),
    )


VECTORS, IMAGES = (STEPS, BATCH, 20), (STEPS, BATCH, 1, 10, 10)
NETS = {
    "tutorial 5": (fully_connected, stepped, VECTORS),
    "tutorial 6": (convolutional, stepped, IMAGES),
    "learnable": (learnable, stepped, VECTORS),
    "norse": (of_norse, sequential_state, VECTORS),
    "norse cells": (of_norse_cells, sequential_state, IMAGES),
    "norse lifted": (of_norse_lifted, sequential_state, IMAGES),
}


def made(name):
    make, run, shape = NETS[name]
    torch.manual_seed(0)
    net = make()
    return net, run, 2 * randn(*shape)


def parameters(net):
    """Return what a network learns, that of Norse's neurons too, which no module lists."""
    of_neurons = [value for module in net.modules() if hasattr(module, "activation") for value in module.p]
    return [*net.parameters(), *(v for v in of_neurons if isinstance(v, nn.Parameter))]


def losses(run, optimizer, x, steps=20):
    """Return the loss at each step of training, the cross-entropy of the summed output."""
    labels, curve = torch.arange(x.shape[1]) % 10, []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(run(x).sum(0), labels)
        loss.backward()
        optimizer.step()
        curve.append(loss.detach())
    return torch.stack(curve)


@pytest.mark.thorough
@pytest.mark.parametrize("name", NETS)
def test_a_fused_network_learns_as_the_stepped_one(name):
    net, run, x = made(name)
    twin, starts = copy.deepcopy(net), copy.deepcopy(parameters(net))
    expected = losses(lambda x: run(net, x), torch.optim.Adam(parameters(net), 5e-3), x)
    fused = fuse(twin)
    found = losses(fused, torch.optim.Adam(fused.parameters(), 5e-3), x)
    assert found[0] == expected[0] and expected[-1] < expected[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)
    for ours, theirs, start in zip(parameters(twin), parameters(net), starts, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
        assert not torch.equal(ours, start)


@pytest.mark.thorough
@pytest.mark.parametrize("name", NETS)
def test_an_optimizer_made_before_goes_on(name):
    net, run, x = made(name)
    twin = copy.deepcopy(net)
    optimizer, other = (torch.optim.Adam(parameters(module), 5e-3) for module in (net, twin))
    expected = losses(lambda x: run(net, x), optimizer, x)
    first = losses(lambda x: run(twin, x), other, x, 10)
    rest = losses(fuse(twin), other, x, 10)
    torch.testing.assert_close(torch.cat([first, rest]), expected, rtol=1e-4, atol=0)
    with torch.no_grad():
        torch.testing.assert_close(run(twin, x).sum(0), fuse(twin)(x).sum(0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NETS)
def test_parameters_buffers_and_layers_are_shared_and_the_original_is_unchanged(name):
    net, run, x = made(name)
    before, modules = copy.deepcopy(net.state_dict()), dict(net.named_modules())
    with torch.no_grad():
        expected = run(net, x)
        fused = fuse(net)
        found = fused(x)
    assert torch.equal(found, expected)
    assert set(map(id, fused.parameters())) == set(map(id, parameters(net)))
    assert dict(net.named_modules()) == modules and before.keys() == net.state_dict().keys()
    assert not any(isinstance(module, hnn.NeuronLayer) for module in net.modules())
    kept = [module for module in net.modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
    assert kept and all(any(module is other for other in fused.modules()) for module in kept)
    for key, value in net.state_dict().items():
        if key in fused.state_dict() and not key.endswith("_extra_state"):
            assert fused.state_dict()[key].data_ptr() == value.data_ptr(), key
    if run is stepped:
        lost = {key.rpartition(".")[2] for key in net.state_dict() if key not in fused.state_dict()}
        assert lost <= {"reset_mechanism_val", "graded_spikes_factor", "beta", "_extra_state", "log_beta"}


def test_surrogates_are_shared():
    surrogate = HTAF(learn=("alpha",))
    net = nn.Sequential(nn.Flatten(), snn.Leaky(0.9, spike_grad=surrogate, init_hidden=True))
    fused = fuse(net)
    assert fused[1].surrogate is surrogate
    surrogate.hardness = 0.3
    with htaf_snn.register():
        x = randn(STEPS, BATCH, 3)
        torch.testing.assert_close(fused(x), stepped(net, x))


def test_tensors_of_norse_that_are_no_parameters_are_shared_too():
    v_th = torch.tensor(0.3, requires_grad=True)
    net = norse.SequentialState(norse.LIF(norse.LIFParameters(v_th=v_th)))
    fused = fuse(net)
    assert fused[0].v_th is v_th and not list(fused.parameters())
    fused(6 * randn(STEPS, BATCH, 3)).sum().backward()
    assert v_th.grad != 0


@pytest.mark.parametrize("training", [False, True])
def test_the_mode_of_every_layer_is_kept(training):
    net, *_ = made("learnable")
    net.train(training)
    net[2].inner.train(not training)
    net[0].train(not training)
    fused = fuse(net)
    expected = {name: module.training for name, module in net.named_modules() if not isinstance(module, HTAF)}
    assert {name: fused.get_submodule(name).training for name in expected if "spike_grad" not in name} == {
        name: value for name, value in expected.items() if "spike_grad" not in name
    }


@pytest.mark.parametrize(
    "neuron",
    [
        lambda: snn.Leaky(0.9),
        lambda: snn.Leaky(0.9, init_hidden=True, output=True),
        lambda: snn.StateLeaky(0.9, 3),
        lambda: norse.LIF(),
        lambda: norse.LIFCell(),
        lambda: norse.LIBoxCell(),
    ],
)
def test_a_single_neuron_is_fused(neuron):
    fused = fuse(neuron())
    assert type(fused) is hnn.Sequential and isinstance(fused[0], hnn.NeuronLayer)
    assert fused(randn(STEPS, BATCH, 3)).shape == (STEPS, BATCH, 3)


def test_names_and_repeated_layers_are_kept():
    flat, double = nn.Flatten(), nn.Linear(3, 3)
    net = nn.Sequential(OrderedDict(flat=flat, one=double, two=double, lif=snn.Leaky(0.9, init_hidden=True)))
    fused, x = fuse(net), 2 * randn(STEPS, BATCH, 3)
    assert list(fused._modules) == ["flat", "one", "two", "lif"] and fused.one is fused.two
    assert torch.equal(fused(x), stepped(net, x)) and fused(x).any()


# -- refusals --


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.lif = nn.Linear(3, 3), snn.Leaky(0.9, init_hidden=True)

    def forward(self, x):
        return x + self.lif(self.fc(x))


class OwnNeuron(snn.SpikingNeuron):
    def forward(self, x):
        return self.fire(x)


def with_hook(module):
    module.register_forward_hook(lambda *_: None)
    return module


def leaky(**options):
    return snn.Leaky(0.9, init_hidden=True, **options)


TWICE = leaky()
REFUSED = {
    "SLSTM": (lambda: nn.Sequential(snn.SLSTM(3, 3, init_hidden=True)),
              r"'0' \(snntorch\.SLSTM\): no fused neuron; expected one of snntorch's Alpha, .*"),
    "LeakyParallel": (lambda: nn.Sequential(snn.LeakyParallel(3, 3)),
                      r"'0' \(snntorch\.LeakyParallel\): no fused neuron; .*"),
    "LSTM": (lambda: nn.Sequential(leaky(), nn.LSTM(3, 3)), r"'1' \(torch\.nn\..*LSTM\): no fused neuron"),
    "own neuron": (lambda: nn.Sequential(OwnNeuron()), r"'0' \(test_fuse\.OwnNeuron\): no fused neuron"),
    "without init_hidden": (lambda: nn.Sequential(nn.Sequential(snn.Leaky(0.9))),
                            r"'0\.0' \(snntorch\.Leaky\): expected init_hidden=True, without which it ret.*"),
    "output": (lambda: nn.Sequential(nn.Sequential(leaky(output=True)), nn.ReLU()),
               r"'0\.0' \(snntorch\.Leaky\): expected output=False but for the last layer, .*"),
    "lacking": (lambda: nn.Sequential(leaky(state_quant=abs)),
                r"'0' \(snntorch\.Leaky\): expected state_quant=False, the only value that fused "
                r"neurons support, got .*"),
    "twice": (lambda: nn.Sequential(TWICE, nn.Linear(3, 3), TWICE),
              r"'2' \(snntorch\.Leaky\): expected neurons that are different, got '0' again, which shares its state"),
    "hook on a neuron": (lambda: nn.Sequential(with_hook(leaky())), r"'0' .*: expected one without hooks, .*"),
    "hook on a chain": (lambda: nn.Sequential(with_hook(nn.Sequential(leaky()))), r"'0' \(.*Sequential\): .*hooks.*"),
    "own forward": (lambda: nn.Sequential(nn.Sequential(Residual())),
                    r"'0\.0' \(test_fuse\.Residual\): its own forward pass steps neurons in an unknown way; replace "
                    r"'0\.0\.lif' by what from_snntorch or from_norse makes of them"),
    "own forward alone": (Residual, r"the network itself \(test_fuse\.Residual\): its own forward .* 'lif' by .*"),
    "Norse in nn.Sequential": (lambda: nn.Sequential(norse.LIF()),
                               r"'0' \(norse\.torch\.LIF\): expected norse\.torch\.SequentialState around it, .*"),
    "SequentialState in nn.Sequential": (
        lambda: nn.Sequential(norse.SequentialState(norse.LIF())),
        r"'0' \(norse\.torch\.SequentialState\): expected norse\.torch\.SequentialState around it, .*"),
    "return_hidden": (lambda: norse.SequentialState(norse.LIF(), return_hidden=True),
                      r"the network itself \(.*SequentialState\): expected return_hidden=False, got True"),
    "cells beside sequences": (lambda: norse.SequentialState(norse.LIF(), norse.LIFCell()),
                               r"'1' \(norse\.torch\.LIFCell\): expected one that takes sequences, as '0' does, .*"),
    "snnTorch beside sequences": (lambda: norse.SequentialState(leaky(), norse.LIF()),
                                  r"'0' \(snntorch\.Leaky\): expected one that takes sequences, as '1' does, .*"),
    "not lifted": (lambda: norse.SequentialState(nn.BatchNorm1d(3), norse.LIF()),
                   r"'0' \(torch\..*BatchNorm1d\): expected norse\.torch\.Lift around it, .*"),
    "batch flattened": (lambda: norse.SequentialState(nn.Flatten(), norse.LIF()),
                        r"'0' \(torch\..*Flatten\): expected norse\.torch\.Lift around it, .*"),
    "lifted neuron": (lambda: norse.SequentialState(norse.Lift(norse.LIFCell()), norse.LIF()),
                      r"'0' \(norse\.torch\.Lift\): its own forward pass .*; replace '0\.lifted_module' by .*"),
    "recurrent": (lambda: norse.SequentialState(norse.CobaLIFCell(3, 3)),
                  r"'0' \(norse\.torch\.CobaLIFCell\): no fused neuron; expected one of norse\.torch's IAF, .*"),
    "learned alpha": (
        lambda: norse.LIF(norse.LIFParameters(method="htaf", alpha=torch.tensor(1.0, requires_grad=True))),
        r"the network itself \(norse\.torch\.LIF\): alpha: expected one without gradient, .*"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_fused_is_named_with_the_reason(name):
    make, reason = REFUSED[name]
    with pytest.raises(ValueError, match=rf"^net: expected layers that can be fused, got\n{reason}$"):
        fuse(make())


def test_all_that_cannot_be_fused_is_told_at_once():
    net = nn.Sequential(
        nn.Linear(3, 3), snn.Leaky(0.9), nn.Sequential(Residual(), snn.SLSTM(3, 3)), leaky(state_quant=abs), leaky()
    )
    with pytest.raises(ValueError, match=r"^net: expected") as caught:
        fuse(net)
    lines = str(caught.value).splitlines()[1:]
    assert [line.partition(" ")[0] for line in lines] == ["'1'", "'2.0'", "'2.1'", "'3'"]


def test_what_holds_no_neuron_is_refused():
    for net in (nn.Sequential(nn.Linear(3, 3)), nn.Linear(3, 3), hnn.Sequential(hnn.Leaky(0.9))):
        with pytest.raises(ValueError, match="net: expected neurons of snnTorch or Norse in it, got none in "):
            fuse(net)
    with pytest.raises(TypeError, match="net: expected a module, got <class"):
        fuse(snn.Leaky)


def test_batchnorm_is_warned_of_and_equal_in_eval_mode():
    net = nn.Sequential(nn.Linear(20, 10), nn.Sequential(nn.BatchNorm1d(10)), leaky())
    with pytest.warns(UserWarning, match=r"net: '1' \(Sequential\) takes its statistics over all time steps at once"):
        fused = fuse(net)
    x = 2 * randn(*VECTORS)
    fused(x)
    net.eval(), fused.eval()
    assert torch.equal(fused(x), stepped(net, x)) and fused(x).any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fuse(nn.Sequential(nn.Linear(20, 10), leaky()))
        fuse(net)


def test_a_fused_network_streams():
    net, run, x = made("learnable")
    with torch.no_grad():
        fused = fuse(net)
        first, state = fused.stream(x[:5])
        rest, _ = fused.stream(x[5:], state)
        torch.testing.assert_close(torch.cat([first, rest]), run(net, x))
