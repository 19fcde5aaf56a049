"""Spiking networks in bits: packed, saved and as C they have the spikes of the floating-point network."""

import ctypes
import re
import shutil
import subprocess

import numpy as np
import pytest
import torch
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn
from without_bits import assert_same_without_bits

from htaf_snn import deploy, models
from htaf_snn import nn as hnn
from htaf_snn.deploy.over_time import NEURONS, layers_on_spikes

GCC = pytest.mark.skipif(not shutil.which("gcc"), reason="gcc is not installed")
STRICT = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O1"]
ARITHMETIC = {"leaky", "synaptic", "lapicque", "iaf", "lif", "lif_box", "lif_refrac", "li", "li_box", "parametric_lif"}


@torch.no_grad()
def active(net, is_exact=False):
    """Make a new network fire; with whole numbers, of which torch's sums and those of C are equal, if `is_exact`."""
    for layer in net.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            layer.weight.mul_(4)
            for value in layer.parameters() if is_exact else ():
                value.copy_(torch.round(value * 64) / 64)
    return net.eval()


def rounded(net, bits=(8,)):
    assert set(deploy.round_weights(net, lambda _: 1.0, bits=bits).values()) == {*bits}
    return net


def spikes_of(packed, x):
    steps = zip(packed.steps, packed.values(x)[1:], strict=True)
    return [deploy.steps.as_float(value) for step, value in steps if isinstance(step, deploy.steps.Neurons)]


@torch.no_grad()
def assert_equal(net, x):
    """Compare the scores and every spike; return the packed network."""
    packed, own = deploy.pack(net), []
    neurons = [module for module in net.modules() if isinstance(module, hnn.NeuronLayer)]
    expected = net(x)
    hooks = [one.register_forward_hook(lambda _, __, output: own.append(output[0].flatten(0, 1))) for one in neurons]
    net(x)
    for hook in hooks:
        hook.remove()
    assert torch.equal(packed(x), expected) and torch.equal(packed._by_bits(x), expected)
    assert_same_without_bits(packed, x)
    for found, wanted in zip(spikes_of(packed, x), own, strict=True):
        assert torch.equal(found, wanted)
    return packed


@st.composite
def cases(draw):
    """Return a network and frames: either model or a chain, of odd sizes, with parameters per neuron or one for all."""
    torch.manual_seed(draw(st.integers(0, 2**31)))
    sizes = draw(st.lists(st.integers(1, 70), min_size=1, max_size=3))
    options = {"reset_mechanism": draw(st.sampled_from(["subtract", "zero", "none"])),
               "reset_delay": draw(st.booleans())}  # fmt: skip
    steps, batch = draw(st.integers(1, 9)), draw(st.integers(1, 5))
    kind, is_per_neuron = draw(st.sampled_from(["mlp", "cnn", "chain"])), draw(st.booleans())

    def leaky(size=None):
        if size is None or not is_per_neuron:
            return hnn.Leaky(beta=draw(st.floats(0.1, 0.99)), threshold=draw(st.floats(0.3, 1.0)), **options)
        return hnn.Leaky(beta=torch.rand(size), threshold=torch.rand(size) + 0.2, **options)

    shape = (2, 7, 5)
    if kind == "mlp":
        norm = draw(st.sampled_from(["none", "batch"]))
        net = models.SpikingMLP(70, sizes, 3, leaky, norm=norm)
    elif kind == "cnn":
        net = models.SpikingCNN(shape, sizes, 3, leaky)
    else:
        channels = sizes[0]
        net = hnn.Sequential(
            nn.Conv2d(2, channels, 3), leaky((channels, 1, 1)), nn.MaxPool2d(2),
            nn.Sequential(nn.Conv2d(channels, 5, (2, 1), bias=False), leaky(), nn.Flatten()), nn.Dropout(),
            nn.Linear(5, 67), leaky(67), nn.Linear(67, 3),
        )  # fmt: skip
    return active(net), torch.poisson(torch.full((steps, batch, *shape), 0.4))


@pytest.mark.thorough
@settings(max_examples=examples(ci=20, thorough=200))
@given(case=cases())
def test_packed_and_saved_networks_equal_their_own(case, tmp_path_factory):
    net, x = case
    assert_equal(net, x)  # in floating point
    if not layers_on_spikes(net):
        return
    packed = assert_equal(rounded(net), x)
    path = tmp_path_factory.mktemp("nets") / "net.safetensors"
    deploy.save(packed, path)
    with torch.no_grad():
        assert torch.equal(deploy.load(path)(x), net(x))


def test_spikes_are_counted():
    """The networks of this file fire, else they would show nothing."""
    torch.manual_seed(0)
    net = rounded(active(models.SpikingMLP(70, [65, 33], 5, lambda: hnn.Leaky(beta=0.9))))
    rates = [value.mean().item() for value in spikes_of(deploy.pack(net), torch.rand(9, 4, 70))]
    assert all(0.02 < rate < 0.5 for rate in rates)


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("layer", NEURONS)
def test_other_neurons_pack(layer):
    torch.manual_seed(0)
    missing = [name for name, value in layer.definition.parameters.items() if value is None]
    own = layer(**dict(zip(missing, (0.9, 0.5), strict=False)))
    net = active(hnn.Sequential(nn.Linear(9, 40), own, nn.Linear(40, 30), hnn.Leaky(beta=0.9)))
    x = torch.rand(20, 3, 9) * 8
    if layer.definition.spikes:
        rounded(net)
    packed = assert_equal(net, x)
    output = spikes_of(packed, x)[0]
    assert packed.steps[2].is_packed == layer.definition.spikes and output.any()
    assert not layer.definition.spikes or set(output.unique().tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (3, 1), (3, 40), (1,)])
def test_parameters_of_any_shape_pack(shape):
    torch.manual_seed(0)
    own = hnn.Leaky(beta=torch.rand(shape), threshold=torch.rand(shape) + 0.3)
    net = rounded(active(hnn.Sequential(nn.Linear(9, 40), own, nn.Linear(40, 30))))
    assert_equal(net, torch.rand(20, 3, 9))


def test_unrounded_layers_stay_in_floating_point():
    net = active(models.SpikingMLP(70, [40, 30, 20], 5, lambda: hnn.Leaky(beta=0.9)))
    before = deploy.check(net)
    assert [layer.name for layer in before.layers if layer.reason] == ["layers.1", "layers.2"]
    assert "would be on bits after deploy.round_weights" in str(before) and before.packs
    calls = iter([1.0, 1.0, 0.0])  # the second layer does not bear it
    assert deploy.round_weights(net, lambda _: next(calls), bits=(8,)) == {"layers.1": 8, "layers.2": 32}
    forms = {layer.name: layer.form for layer in deploy.check(net).layers}
    assert forms["neurons.0"] == forms["layers.1"] == "bits"
    assert forms["layers.0.1"] == forms["neurons.1"] == forms["layers.2"] == forms["readout"] == "float32"
    assert_equal(net, torch.rand(5, 2, 70))


def test_binary_layers_take_spikes():
    torch.manual_seed(0)
    layers = [nn.Linear(9, 40), hnn.Leaky(beta=0.9), hnn.BinaryLinear(40, 30, scale="magnitude"), hnn.Leaky(beta=0.9)]
    net = active(hnn.Sequential(*layers, hnn.HeavisideLinear(30, 4)))
    packed = assert_equal(net, torch.rand(20, 3, 9))
    assert [type(step) for step in packed.steps][3::2] == [deploy.steps.BinaryProduct, deploy.steps.HeavisideProduct]
    assert deploy.round_weights(net, lambda _: 1.0) == {"4": 8}
    assert_equal(net, torch.rand(20, 3, 9))


def test_the_bias_is_exact_and_close():
    torch.manual_seed(0)
    net = active(models.SpikingMLP(9, [70, 30], 5, lambda: hnn.Leaky(beta=0.9)))
    layer = net.layers[1]
    before = layer.bias.detach().clone()
    rounded(net, bits=(4,))
    assert torch.allclose(layer.bias, before, atol=1e-5)
    x = torch.randint(0, 2, (200, 70)).float()
    with torch.no_grad():
        exact = x.double() @ layer.weight.double().T + layer.bias.double()
        assert torch.equal(layer(x).double(), exact)


def test_files_hold_eight_bits(tmp_path):
    torch.manual_seed(0)
    net = rounded(active(models.SpikingMLP(9, [64, 64], 5, lambda: hnn.Leaky(beta=0.9))))
    deploy.save(deploy.pack(net), tmp_path / "net.safetensors")
    kinds = {name: value.dtype for name, value in load_file(tmp_path / "net.safetensors").items()}
    assert [name for name, kind in kinds.items() if kind == torch.int8] == ["4.weight"]


def lif(beta=0.9, **options):
    return lambda: hnn.Leaky(beta=beta, **options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lif(graded_spikes_factor=2.0), "neurons.0: cannot be packed: expected graded_spikes_factor=1, got"),
        (lif(surrogate="htaf(hardness=0.5)"), "neurons.0: cannot be packed: expected a surrogate of hardness 1, got"),
        (lif(surrogate=lambda u: (u >= 0).float()), "neurons.0: cannot be packed: expected a surrogate whose spikes"),
        (lambda: hnn.RLeaky(beta=0.9, linear_features=8), "neurons.0: RLeaky cannot be packed; expected a neuron of"),
        (nn.Identity, "neurons.0: Alone cannot be packed; expected a neuron of htaf_snn.nn"),
    ],
)
def test_what_is_not_a_step_is_refused_by_name(make, message):
    net = models.SpikingMLP(9, [8, 8], 3, make).eval()
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        deploy.pack(net)
    assert not deploy.check(net).packs


def test_frames_of_other_shapes_are_refused():
    pytest.importorskip("onnx", reason="onnx is not installed")
    pytest.importorskip("qonnx", reason="qonnx is not installed")
    net = models.SpikingMLP(9, [8], 3, lif()).eval()
    net.frame_shape = (5, 1, 3, 3)
    packed = deploy.pack(net)
    for frames, message in ((torch.rand(5, 2, 9), "got"), (torch.rand(2, 5, 1, 3, 3), "looks batch-first")):
        for network in (net, packed):
            with pytest.raises(ValueError, match=rf"^frames: expected .* = \(T, B, 1, 3, 3\), .*{message}"):
                network(frames)
    with pytest.raises(ValueError, match=r"^frames: expected \(T, B, features, …\), got \(5, 9\)"):
        deploy.pack(models.SpikingMLP(9, [8], 3, lif()).eval())(torch.rand(5, 9))
    for export in (lambda: deploy.export_onnx(packed, "net.onnx", torch.rand(5, 2, 1, 3, 3)),
                   lambda: deploy.export_qonnx(packed, "net.onnx", (1, 3, 3))):  # fmt: skip
        with pytest.raises(ValueError, match=r"expected a network of images for Q?ONNX, got a spiking one"):
            export()


def run_in_c(packed, x, folder):
    """Return the scores after the last time step, or those of every one for a network that gives a sequence."""
    deploy.export_c(packed, folder / "net.c", tuple(x.shape[2:]))
    subprocess.run(["gcc", *STRICT, "-shared", "-fPIC", "-o", folder / "net.so", folder / "net.c"], check=True)
    library, expected = ctypes.CDLL(str(folder / "net.so")), packed(x)
    scores = np.empty((*x.shape[:2], expected.shape[-1]), np.float32)
    for sample in range(x.shape[1]):
        library.net_reset()
        for step in range(x.shape[0]):
            frame = np.ascontiguousarray(x[step, sample].numpy())
            own = scores[step, sample]
            best = library.net_step(*(array.ctypes.data_as(ctypes.c_void_p) for array in (frame, own)))
            assert best == own.argmax()
    return torch.from_numpy(scores) if expected.ndim == 3 else torch.from_numpy(scores[-1])


@GCC
@settings(max_examples=examples(ci=6, thorough=60))
@given(case=cases())
def test_c_equals_the_packed_network(case, tmp_path_factory):
    net, x = case
    active(net, is_exact=True)
    if any(isinstance(module, nn.BatchNorm1d) for module in net.modules()):
        return  # C computes it by another formula
    if layers_on_spikes(net):
        rounded(net)
    x = torch.cat([x] * 8)[:8]  # so that the mean is exact, and the readout
    packed = deploy.pack(net)
    assert torch.equal(run_in_c(packed, x, tmp_path_factory.mktemp("c")), packed(x))


@GCC
@pytest.mark.parametrize("layer", [layer for layer in NEURONS if layer.definition.name in ARITHMETIC])
def test_c_of_other_neurons_is_equal(layer, tmp_path):
    torch.manual_seed(0)
    given = {name: 0.5 for name, value in layer.definition.parameters.items() if value is None}
    net = active(hnn.Sequential(nn.Linear(9, 40), layer(**given), nn.Linear(40, 30)), is_exact=True)
    if layer.definition.spikes:
        rounded(net)
        x = torch.randint(0, 5, (20, 3, 9)).float()
        packed = deploy.pack(net)
        assert torch.equal(run_in_c(packed, x, tmp_path), packed(x)) and spikes_of(packed, x)[0].any()
    else:
        x, packed = torch.rand(20, 3, 9), deploy.pack(net[:2].eval())
        torch.testing.assert_close(run_in_c(packed, x, tmp_path), packed(x))


@GCC
def test_c_leaves_the_readout_out_if_there_is_no_place_for_it(tmp_path):
    torch.manual_seed(0)
    net = rounded(active(models.SpikingMLP(9, [20, 20], 3, lif()), is_exact=True))
    packed, x = deploy.pack(net), torch.randint(0, 5, (4, 1, 9)).float()
    expected = run_in_c(packed, x, tmp_path)
    library, scores = ctypes.CDLL(str(tmp_path / "net.so")), np.empty(3, np.float32)
    library.net_reset()
    for step, frame in enumerate(x.numpy()):
        place = scores.ctypes.data_as(ctypes.c_void_p) if step == 3 else None
        best = library.net_step(np.ascontiguousarray(frame[0]).ctypes.data_as(ctypes.c_void_p), place)
        assert best == (scores.argmax() if step == 3 else -1)
    assert torch.equal(torch.from_numpy(scores), expected[0])


def test_what_c_lacks_is_named(tmp_path):
    net = hnn.Sequential(nn.Linear(9, 8), hnn.LIFEx()).eval()
    with pytest.raises(ValueError, match=r"^1: lif_ex cannot be written in C: it has exp, which C has only in"):
        deploy.export_c(deploy.pack(net), tmp_path / "net.c", (9,))
    net = hnn.Sequential(nn.Linear(9, 8), hnn.Leaky(beta=torch.rand(2, 8))).eval()
    with pytest.raises(ValueError, match=r"beta: expected"):
        deploy.export_c(deploy.pack(net), tmp_path / "net.c", (9,))
    assert not list(tmp_path.iterdir())
