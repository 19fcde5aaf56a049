"""Recurrent layers against snnTorch's and Norse's, and every backend against the reference."""

import copy
import pickle

import norse.torch as norse
import pytest
import snntorch as snn
import torch
from devices import DEVICES, QUICKLY
from torch import nn

from htaf_snn import HTAF, functional, fuse, interop
from htaf_snn import nn as hnn
from htaf_snn.neurons import NEURONS

SURROGATE = "htaf(alpha=0.7,beta=5.0)"

pytestmark = [pytest.mark.usefixtures("poisoned"), pytest.mark.filterwarnings("ignore::RuntimeWarning")]


def weighted(output):
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view(output.shape)
    return (output * weights.to(output.device)).sum()


def assert_close(found, expected, rtol=1e-5):
    for name, value in expected.items():
        worst, largest = (found[name] - value).abs().max(), value.abs().max()
        assert worst <= rtol * largest, f"{name}: {worst} of {largest}"


SHAPES = {
    "linear": ({"linear_features": 9}, (9,)),
    "conv2d": ({"conv2d_channels": 3, "kernel_size": 3}, (3, 5, 4)),
    "one-to-one": ({"all_to_all": False, "V": 0.7}, (9,)),
}
OF_SNNTORCH = [
    ("RLeaky", reset, delay, kind)
    for reset in ("subtract", "zero", "none")
    for delay in (True, False)
    for kind in SHAPES
] + [("RSynaptic", reset, True, kind) for reset in ("subtract", "zero", "none") for kind in SHAPES]


def of_snntorch(name, reset, delay, kind, backend):
    options, shape = SHAPES[kind]
    decays = {"beta": 0.9} if name == "RLeaky" else {"alpha": 0.8, "beta": 0.9}
    learned = {f"learn_{name}": True for name in (*decays, "threshold")}
    torch.manual_seed(1)
    library = getattr(snn, name)(
        **decays, **options, **learned, spike_grad=HTAF(0.7, 5.0), reset_mechanism=reset, reset_delay=delay
    )
    layer = getattr(hnn, name)(
        **decays, **options, **learned, surrogate=SURROGATE, reset_mechanism=reset, reset_delay=delay, backend=backend
    )
    if kind != "one-to-one":
        layer.recurrent.load_state_dict(library.recurrent.state_dict())
    return library, layer, shape


def stepped(neuron, x, count):
    states, spikes = [torch.zeros_like(x[0])] * count, []
    for current in x:
        states = neuron(current, *states)
        spikes.append(states[0])
    return torch.stack(spikes), states


@pytest.mark.parametrize(("name", "reset", "delay", "kind"), OF_SNNTORCH)
@pytest.mark.parametrize("backend", ["torch", *QUICKLY], indirect=True)
def test_equals_snntorch(backend, name, reset, delay, kind):
    *neurons, shape = of_snntorch(name, reset, delay, kind, backend)
    library, layer = (neuron.to(DEVICES[backend]) for neuron in neurons)
    x = torch.randn(12, 4, *shape, generator=torch.Generator().manual_seed(0)).to(DEVICES[backend])
    # `named_parameters` names V once, of the neuron or of its recurrent module.
    ours = {name.rpartition(".")[2]: p for name, p in layer.named_parameters() if "surrogate" not in name}
    theirs = {name.rpartition(".")[2]: p for name, p in library.named_parameters() if "spike_grad" not in name}
    leaf, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    spikes, state = layer(leaf)
    expected, last = stepped(library, other, 3 if name == "RSynaptic" else 2)
    assert spikes.any() and not spikes.all()
    assert torch.equal(spikes, expected)
    assert torch.equal(state.z, last[0]) and torch.equal(state.v, last[-1])
    assert ours.keys() == theirs.keys()
    found = dict(zip(["x", *ours], torch.autograd.grad(weighted(spikes), [leaf, *ours.values()]), strict=True))
    wanted = dict(zip(["x", *theirs], torch.autograd.grad(weighted(expected), [other, *theirs.values()]), strict=True))
    assert_close(found, wanted, rtol=2e-5)


OF_NORSE = ["LIF", "LIFEx", "LIFAdEx", "LIFRefrac", "LIFAdExRefrac", "LSNN"]


def parameters_of_norse(name):
    given = {"method": SURROGATE, "alpha": torch.tensor(1.0), "v_th": torch.tensor(0.3)}
    if name.endswith("Refrac"):
        inner = getattr(norse, f"{name.removesuffix('Refrac')}Parameters")(**given)
        return getattr(norse, f"{name}Parameters")(inner, torch.tensor(2.0))
    return getattr(norse, f"{name}Parameters")(**given)


def of_norse(name, backend, **more):
    torch.manual_seed(2)
    library = getattr(norse, f"{name}Recurrent")(6, 11, parameters_of_norse(name), **more)
    rho = {"rho_reset": 2.0} if name.endswith("Refrac") else {}
    layer = getattr(hnn, f"{name}Recurrent")(
        6, 11, v_th=0.3, **rho, surrogate=SURROGATE, backend=backend, **more,
        input_weights=library.input_weights.detach(), recurrent_weights=library.recurrent_weights.detach(),
    )  # fmt: skip
    return library, layer


@pytest.mark.parametrize("autapses", [False, True])
@pytest.mark.parametrize("name", OF_NORSE)
@pytest.mark.parametrize("backend", ["torch", *QUICKLY], indirect=True)
def test_equals_norse(backend, name, autapses, registered):
    library, layer = (neuron.to(DEVICES[backend]) for neuron in of_norse(name, backend, autapses=autapses))
    x = 3 * torch.randn(15, 4, 6, generator=torch.Generator().manual_seed(0)).to(DEVICES[backend])
    leaf, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    spikes, _ = layer(leaf)
    expected, _ = library(other)
    assert spikes.any() and not spikes.all()
    assert torch.equal(spikes, expected)
    names = ["input_weights", "recurrent_weights"]
    found, wanted = (
        dict(
            zip(["x", *names], torch.autograd.grad(weighted(y), [leaf_, *(getattr(m, n) for n in names)]), strict=True)
        )
        for y, leaf_, m in ((spikes, leaf, layer), (expected, other, library))
    )
    if not autapses:
        # Norse's hook clears the diagonal when a gradient is accumulated, which `autograd.grad` does not do.
        wanted["recurrent_weights"].fill_diagonal_(0.0)
    assert_close(found, wanted, rtol=2e-5)


def test_equals_norses_izhikevich():
    from norse.torch.functional.izhikevich import tonic_spiking

    torch.manual_seed(3)
    library = norse.IzhikevichRecurrent(6, 11, tonic_spiking)
    layer = hnn.IzhikevichRecurrent(
        6, 11, surrogate="norse.super", input_weights=library.input_weights.detach(), backend="torch",
        recurrent_weights=library.recurrent_weights.detach(),
    )  # fmt: skip
    x = 30 * torch.rand(40, 3, 6)
    expected, state = library(x)
    spikes, last = layer(x)
    assert spikes.any() and torch.equal(spikes, expected)
    assert torch.equal(last.v, state.v) and torch.equal(last.u, state.u)


@pytest.mark.parametrize("hardness", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("options", [{}, {"save_dtype": None, "checkpoint_every": 3}])
@pytest.mark.parametrize("backend", ["numba", "triton"])
def test_equals_the_reference(backend, options, hardness):
    """With gradients of states and parameters, which are random, and of all states."""
    g = torch.Generator().manual_seed(4)
    leaves = {
        "x": torch.randn(7, 2, 5, generator=g), "z": torch.rand(2, 5, generator=g),
        "v": torch.randn(2, 5, generator=g), "i": torch.randn(2, 5, generator=g),
        "weight": torch.randn(5, 5, generator=g), "bias": torch.randn(5, generator=g),
        "alpha": torch.rand(5, generator=g), "beta": torch.tensor(0.8),
        "threshold": 0.5 + torch.rand(2, 1, generator=g),
    }  # fmt: skip

    def run(backend, dtype, **options):
        given = {name: value.to(DEVICES[backend], dtype).requires_grad_() for name, value in leaves.items()}
        neuron = {name: given[name] for name in ("alpha", "beta", "threshold")}
        keep = "checkpoint_every" not in options
        spikes, *rest = functional.run_recurrent(
            NEURONS["rsynaptic"], given["x"], (given["weight"], given["bias"]), backend=backend, return_states=keep,
            state=(given["z"], given["v"], given["i"]), surrogate=HTAF(hardness=hardness), **neuron, **options,
        )  # fmt: skip
        outputs = [spikes, *rest[0], *(rest[1] if keep else ())]
        grads = torch.autograd.grad(sum(map(weighted, outputs)), list(given.values()))
        return [output.cpu() for output in outputs], {name: g.cpu() for name, g in zip(given, grads, strict=True)}

    exact, grads = run("torch", torch.float64, **options)
    found, found_grads = run(backend, torch.float32, **options)
    for output, value in zip(found, exact, strict=True):
        torch.testing.assert_close(output.double(), value, rtol=1e-5, atol=1e-5)
    assert_close(found_grads, grads, rtol=2e-5)


@pytest.mark.parametrize("backend", DEVICES)
@pytest.mark.parametrize("steps", [0, 1, 7])
def test_lengths_and_streaming(backend, steps):
    torch.manual_seed(5)
    layer = hnn.RLeaky(0.9, linear_features=5, backend=backend).to(DEVICES[backend])
    x = torch.randn(steps, 2, 5, device=DEVICES[backend])
    whole, last = layer(x)
    first, state = layer(x[: steps // 2])
    second, end = layer(x[steps // 2 :], state)
    assert torch.equal(whole, torch.cat([first, second]))
    assert all(map(torch.equal, last, end))


def test_gradcheck_of_the_smooth_step():
    torch.manual_seed(6)
    x, w, b = torch.randn(4, 2, 3).double(), torch.randn(3, 3).double(), torch.randn(3).double()

    def run(x, weight, bias, beta):
        return functional.run_recurrent(
            NEURONS["rleaky"], x, (weight, bias), beta=beta, surrogate=HTAF(hardness=0.0), backend="numba"
        )[0]

    given = [t.requires_grad_() for t in (x, w, b, torch.tensor(0.8, dtype=torch.float64))]
    assert torch.autograd.gradcheck(run, given)


def test_saves_no_graph_of_the_time_steps():
    layer = hnn.RLeaky(0.9, linear_features=5, backend="numba")
    spikes, _ = layer(torch.randn(50, 2, 5, requires_grad=True))
    seen, waiting = set(), [spikes.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [before for before, _ in node.next_functions]
    assert len(seen) < 40


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["RLeaky", "LSNNRecurrent"])
def test_compiles_copies_and_pickles(name):
    torch.manual_seed(7)
    layer = hnn.RLeaky(0.9, linear_features=5) if name == "RLeaky" else hnn.LSNNRecurrent(5, 5, v_th=0.3)
    x = 2 * torch.randn(6, 2, 5)
    expected, state = layer(x)
    compiled, _ = torch.compile(layer, fullgraph=True)(x)
    assert torch.equal(compiled, expected)
    compiled.sum().backward()
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(x)[0], expected)
    assert torch.equal(pickle.loads(pickle.dumps(state)).z, state.z)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x.bfloat16())[0].dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("make", "error", "names"),
    [
        (lambda: hnn.RLeaky(0.9), TypeError, ["all_to_all", "linear_features", "kernel_size"]),
        (lambda: hnn.RLeaky(0.9, linear_features=3, kernel_size=3), TypeError, ["linear_features", "kernel_size"]),
        (lambda: hnn.RLeaky(0.9, all_to_all=False, linear_features=3), TypeError, ["all_to_all", "V"]),
        (lambda: hnn.RLeaky(0.9, conv2d_channels=3, kernel_size=4), ValueError, ["kernel_size", "odd", "4"]),
        (
            lambda: hnn.LIFRecurrent(3, 4, recurrent_weights=torch.zeros(3, 4)),
            ValueError,
            ["recurrent_weights", "(4, 4)"],
        ),
        (lambda: hnn.RLeaky(0.9, linear_features=3)(torch.zeros(2, 2, 4)), ValueError, ["recurrent", "(4, 4)"]),
        (
            lambda: hnn.RLeaky(0.9, "snntorch.atan", linear_features=3)(torch.zeros(2, 2, 3)),
            ValueError,
            ["threshold"],
        ),
        (
            lambda: hnn.RLeaky(0.9, surrogate="snntorch.atan", linear_features=3, backend="numba")(
                torch.zeros(2, 2, 3)
            ),
            ValueError,
            ["surrogate", "htaf", "backend='torch'"],
        ),
        (
            lambda: functional.run_recurrent(NEURONS["rleaky"], torch.zeros(2, 2, 3), nn.ReLU(), beta=0.9),
            TypeError,
            ["recurrent", "Linear"],
        ),
        (
            lambda: functional.run_recurrent(
                NEURONS["rleaky"], torch.zeros(2, 2, 3, 4, 4), nn.Conv2d(3, 3, 3, stride=2, padding=1), beta=0.9
            ),
            ValueError,
            ["recurrent", "shape", "stride"],
        ),
        (
            lambda: hnn.RLeaky(0.9, linear_features=3)(torch.zeros(2, 2, 3), torch.zeros(2, 3)),
            ValueError,
            ["state", "z, v"],
        ),
    ],
)
def test_bad_input(make, error, names):
    with pytest.raises(error) as caught:
        make()
    assert all(name in str(caught.value) for name in names), caught.value


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("name", ["RLeaky", "RSynaptic"])
def test_conversions_of_snntorchs(name, kind):
    library, _, shape = of_snntorch(name, "subtract", True, kind, "numba")
    layer = interop.from_snntorch(library)
    x = torch.randn(8, 3, *shape)
    spikes, state = layer(x)
    other = interop.to_snntorch(interop.from_snntorch(interop.to_snntorch(layer)))
    expected, last = stepped(other, x, len(state))
    assert spikes.any() and torch.equal(spikes, expected)
    assert all(map(torch.equal, interop.snntorch.state_to_snntorch(layer, state), last))
    assert all(map(torch.equal, interop.snntorch.state_from_snntorch(layer, tuple(last)), state))
    learned = {name for name, _ in layer.named_parameters()}
    assert {"beta", "threshold"} <= learned and any(name.startswith("recurrent.") for name in learned)


@pytest.mark.parametrize("autapses", [False, True])
@pytest.mark.parametrize("name", OF_NORSE)
def test_conversions_of_norses(name, autapses, registered):
    library, _ = of_norse(name, "numba", autapses=autapses)
    layer = interop.from_norse(interop.to_norse(interop.from_norse(library)))
    x = 3 * torch.randn(8, 3, 6)
    spikes, state = layer(x)
    expected, last = library(x)
    assert spikes.any() and torch.equal(spikes, expected)
    for ours, theirs in zip(interop.norse.state_from_norse(layer, last), state, strict=True):
        torch.testing.assert_close(ours, theirs)
    again, _ = library(x, interop.norse.state_to_norse(layer, state))
    assert torch.equal(again, layer(x, state)[0])
    cell = getattr(norse, f"{name}RecurrentCell")(6, 11, parameters_of_norse(name))
    assert type(interop.from_norse(cell)) is type(layer)


def test_fuse_shares_recurrent_weights(registered):
    net = nn.Sequential(nn.Linear(4, 5), snn.RLeaky(0.9, linear_features=5, init_hidden=True, spike_grad=HTAF()))
    fused, x = fuse(net), torch.randn(6, 2, 4)
    assert fused[1].recurrent is net[1].recurrent
    assert torch.equal(fused(x), torch.stack([net(current) for current in x]))
    lsnn = norse.LSNNRecurrent(4, 4, parameters_of_norse("LSNN"))
    net = norse.SequentialState(norse.LIFRecurrent(4, 4, parameters_of_norse("LIF")), lsnn)
    fused = fuse(net)
    assert fused[1].recurrent_weights is lsnn.recurrent_weights
    assert torch.equal(fused(x), net(x)[0])
    for options in ({}, {"all_to_all": False, "V": torch.rand(5)}):
        with pytest.raises(ValueError, match="reset_delay=True"):
            interop.from_snntorch(
                snn.RSynaptic(0.9, 0.8, linear_features=None if options else 5, **options, reset_delay=False)
            )
