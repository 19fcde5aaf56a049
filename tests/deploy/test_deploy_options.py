"""Networks of random layers with all options: equal when packed, saved and loaded, or refused by name."""

import re

import pytest
import torch
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional
from without_bits import assert_same_without_bits

from htaf_snn import deploy, hardening
from htaf_snn import nn as hnn

pytestmark = pytest.mark.usefixtures("by_programs")

REASONS = r"not of two levels|without running statistics|expected Flatten\(1\)|returns indices|changes the input of"
EXAMPLES = examples(ci=40, thorough=1000)

sizes = st.integers(1, 3)
levels = st.sampled_from([(-1, 1), (0, 1)])
binary = {
    "bias": st.booleans(),
    "scale": st.sampled_from(["none", "magnitude", "learned"]),
    "surrogate": st.sampled_from(["clipped_ste", "magnitude_aware", "htaf"]),
}
norm = {
    "eps": st.sampled_from([1e-5, 0.5]),
    "momentum": st.sampled_from([0.1, None]),
    "affine": st.booleans(),
    "track_running_stats": st.sampled_from([True, True, True, False]),
}
window = {"kernel_size": sizes, "padding": st.integers(0, 1)}
places = {
    "kernel_size": st.one_of(sizes, st.tuples(sizes, sizes)),
    "stride": st.integers(1, 2),
    "padding": st.one_of(st.integers(0, 2), st.tuples(st.integers(0, 1), st.integers(0, 2))),
    "dilation": st.integers(1, 2),
}
modes = st.sampled_from(["zeros", "reflect", "replicate", "circular"])
pool = window | {"stride": st.sampled_from([None, 1, 2]), "ceil_mode": st.booleans()}


def drawn(data, **options):
    return {name: data.draw(option, label=name) for name, option in options.items()}


def groups(data, channels):
    return data.draw(st.sampled_from([1, channels]), label="groups")


def wider(channels):
    return 2 * channels if channels < 40 else channels


def convolution(data, channels):
    by = groups(data, channels)
    where = drawn(data, **places, bias=st.booleans(), padding_mode=modes)
    if where["stride"] == 1 and data.draw(st.booleans()):
        where["padding"] = data.draw(st.sampled_from(["same", "valid"]), label="padding")
    return nn.Conv2d(channels, wider(channels), groups=by, **where)


class Forward(nn.Module):
    def __init__(self, function, **layers):
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x):
        return self.function(self, x)


FUNCTIONS = [
    lambda net, x: x.view(x.size(0), -1),
    lambda net, x: x.reshape((x.shape[0], -1)),
    lambda net, x: x.mean((2, 3)),
    lambda net, x: torch.mean(x, -1, keepdim=True),
    lambda net, x: functional.max_pool2d(x, 2, stride=1),
    lambda net, x: functional.leaky_relu(x, 0.3) + x,
    lambda net, x: torch.cat((x, x), 1),
    lambda net, x: functional.dropout(x, 0.5, net.training).relu(),
]
IMAGES = {
    "conv": convolution,
    "norm": lambda data, n: nn.BatchNorm2d(n, **drawn(data, **norm)),
    "rprelu": lambda data, n: hnn.RPReLU(n),
    "prelu": lambda data, n: nn.PReLU(data.draw(st.sampled_from([1, n])), data.draw(st.sampled_from([0.25, -0.5]))),
    "relu": lambda data, n: nn.ReLU(data.draw(st.booleans(), label="inplace")),
    "unit": lambda data, n: data.draw(
        st.sampled_from([nn.LeakyReLU(0.1), nn.LeakyReLU(-0.5), nn.Hardtanh(), nn.ReLU6(), nn.Tanh(), nn.Softmax(1)])
    ),
    "function": lambda data, n: Forward(data.draw(st.sampled_from(FUNCTIONS), label="function")),
    "average": lambda data, n: nn.AvgPool2d(
        **drawn(data, **pool, count_include_pad=st.booleans(), divisor_override=st.sampled_from([None, 3]))
    ),
    "adaptive": lambda data, n: nn.AdaptiveAvgPool2d(
        data.draw(st.sampled_from([1, 2, (None, 2)]), label="output_size")
    ),
    "maximum": lambda data, n: nn.MaxPool2d(
        **drawn(data, **pool, dilation=st.integers(1, 2), return_indices=st.sampled_from([False] * 9 + [True]))
    ),
    "activation": lambda data, n: hnn.BinaryActivation("htaf", *drawn(data, levels=levels).values(), shift(data, n)),
    "dropout": lambda data, n: data.draw(st.sampled_from([nn.Dropout, nn.Dropout2d, nn.Identity]))(),
    "binary": lambda data, n: hnn.BinaryConv2d(n, wider(n), groups=groups(data, n), **drawn(data, **places, **binary)),
    "heaviside": lambda data, n: hnn.HeavisideConv2d(
        n, wider(n), groups=groups(data, n), **drawn(data, **places, bias=st.booleans())
    ),
    "flatten": lambda data, n: nn.Flatten(*data.draw(st.sampled_from([(1,), (1, -1), (1, -1), (2,), (1, 2)]))),
}
FEATURES = {
    "linear": lambda data, n: nn.Linear(n, data.draw(st.integers(1, 70)), data.draw(st.booleans())),
    "norm": lambda data, n: nn.BatchNorm1d(n, **drawn(data, **norm)),
    "dropout": lambda data, n: data.draw(st.sampled_from([nn.Dropout, nn.Identity]))(),
    "binary": lambda data, n: hnn.BinaryLinear(n, data.draw(st.integers(1, 70)), **drawn(data, **binary)),
    "heaviside": lambda data, n: hnn.HeavisideLinear(n, data.draw(st.integers(1, 70)), data.draw(st.booleans())),
    "flatten": lambda data, n: nn.Flatten(),
    **{name: IMAGES[name] for name in ("rprelu", "prelu", "relu", "unit", "activation")},
}
# The typical pieces of a binary network, drawn as a whole, so that most networks have some.
BLOCKS = (["activation", "binary"], ["activation", "maximum", "binary"], ["activation", "heaviside", "norm"])


def shift(data, channels):
    return data.draw(st.sampled_from([None, channels]), label="channels")


@torch.no_grad()
def network(data):
    """Draw a chain of layers that fit each other, with random parameters, and its input."""
    shape = data.draw(st.sampled_from([(2, 9, 8), (1, 6, 7), (3, 5, 5), (20,)]), label="shape")
    x = value = torch.rand(4, *shape)
    layers = [hnn.QuantizeInput()] if data.draw(st.booleans(), label="quantized") else []
    for _ in range(data.draw(st.integers(1, 4), label="parts")):
        kinds = IMAGES if value.ndim == 4 else FEATURES
        part = data.draw(st.one_of(st.sampled_from([[kind] for kind in kinds]), st.sampled_from(BLOCKS)))
        for kind in part:
            kinds = IMAGES if value.ndim == 4 else FEATURES
            if kind not in kinds or value.ndim not in (2, 4):
                continue
            layer = randomised(kinds[kind](data, value.shape[1])).eval()
            try:
                after = layer(value.clone())
            except (RuntimeError, ValueError):  # the options do not fit the image
                continue
            if isinstance(after, tuple):  # with indices, which no layer takes
                return nn.Sequential(*layers, layer).eval(), x
            if after.isfinite().all():  # not if a window lies outside the image
                layers.append(layer)
                value = after
    return nn.Sequential(*layers).eval(), x


def randomised(layer):
    for name, value in (*layer.named_parameters(), *layer.named_buffers()):
        if value.is_floating_point() and "surrogate" not in name:
            value.copy_(torch.rand_like(value) + 0.5 if "var" in name else torch.randn_like(value))
    return layer


@pytest.mark.hypothesis
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_random_networks_are_equal_or_refused(tmp_path):
    path, outcomes = tmp_path / "net.safetensors", []

    @settings(max_examples=EXAMPLES)
    @given(data=st.data(), seed=st.integers(0, 2**31))
    def run(data, seed):
        torch.manual_seed(seed)
        net, x = network(data)
        try:
            packed = deploy.pack(net)
        except ValueError as error:
            assert re.search(rf"^\d+: .*({REASONS})", str(error)), error
            outcomes.append("refused")
            return
        deploy.save(packed, path)
        with torch.no_grad():
            expected = net(x.clone())
        assert torch.equal(packed(x), expected)
        assert_same_without_bits(packed, x)
        assert torch.equal(deploy.load(path)(x), expected)
        outcomes.append("packed")

    run()
    assert outcomes.count("packed") >= EXAMPLES // 3


def test_a_packed_network_shares_nothing_with_its_model():
    torch.manual_seed(0)
    layers = [hnn.BinaryActivation(channels=6), hnn.BinaryLinear(6, 5, bias=True, scale="learned"), nn.BatchNorm1d(5)]
    net = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), *layers, nn.PReLU(5), hnn.RPReLU(5)).eval()
    x = torch.randn(8, 6)
    packed = deploy.pack(net)
    before, statistics = packed(x), net[1].running_mean.clone()
    with torch.no_grad():
        for value in (*net.parameters(), *net.buffers()):
            value.add_(1)
    assert torch.equal(packed(x), before)
    net.train()
    packed(x)
    assert torch.equal(net[1].running_mean, statistics + 1)
    assert not any(value.requires_grad for value in packed.parameters())


def two_levels(*layers):
    return nn.Sequential(hnn.BinaryActivation(), *layers).eval()


@pytest.mark.parametrize(
    ("net", "shape"),
    [
        (two_levels(hnn.BinaryLinear(6, 6, bias=True, scale="learned")), (6, 6, 6)),
        (two_levels(hnn.BinaryLinear(6, 6), hnn.BinaryActivation(levels=(0, 1)), hnn.HeavisideLinear(6, 6)), (6, 6, 6)),
        (two_levels(hnn.HeavisideLinear(6, 6), hnn.BinaryActivation()), (6,)),
        (two_levels(hnn.HeavisideLinear(6, 6), hnn.BinaryActivation()), (2, 6, 6, 6)),
        (two_levels(hnn.BinaryConv2d(6, 6, 3, bias=True, padding=1, scale="magnitude")), (6, 6, 6)),
        (two_levels(nn.MaxPool2d(2), hnn.HeavisideConv2d(6, 6, 3, padding=1), hnn.BinaryActivation()), (6, 6, 6)),
        (nn.Sequential(hnn.QuantizeInput(), hnn.BinaryLinear(6, 6, bias=True)).eval(), (6, 6, 6)),
    ],
    ids=["binary", "heaviside", "vector", "four", "convolution", "pool", "quantized"],
)
def test_all_shapes_that_layers_accept(net, shape):
    torch.manual_seed(0)
    randomised(net.requires_grad_(False))
    x = torch.rand(shape)
    assert torch.equal(deploy.pack(net)(x), net(x))


def test_shapes_that_folded_layers_refuse():
    folded = two_levels(hnn.BinaryLinear(6, 6), nn.BatchNorm1d(6), hnn.BinaryActivation())
    with pytest.raises(ValueError, match=r"^x: expected \(B, 6\) at this layer, got \(6, 6, 6\)"):
        deploy.pack(folded)(torch.randn(6, 6, 6))
    # BatchNorm over positions instead of features is not folded.
    kept = randomised(
        two_levels(hnn.BinaryLinear(6, 5), nn.BatchNorm1d(4), hnn.BinaryActivation()).requires_grad_(False)
    )
    x = torch.randn(3, 4, 6)
    assert torch.equal(deploy.pack(kept)(x), kept(x))


def hooked():
    net = two_levels(hnn.BinaryLinear(3, 3))
    net[1].register_forward_hook(lambda module, inputs, output: -output)
    return net


def changed(name, value):
    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding_mode="reflect"), nn.BatchNorm2d(2)).eval()
    setattr(net[0] if name == "padding" else net[1], name, value)
    return net


class Own(hnn.BinaryLinear):
    def forward(self, x):
        return 2 * super().forward(x)


def twice_in_place(net, x):
    y = net.activation(x)
    return net.relu(y) + y


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (hooked, "^1: cannot be packed: its hooks would be lost"),
        (lambda: changed("padding", (1, 1)), "^0: cannot be packed: _reversed_padding.* changed after it was made"),
        (lambda: changed("weight", None), "^1: cannot be packed: "),
        (lambda: two_levels(Own(3, 3)), "^1: Own cannot be packed"),
        (lambda: two_levels(nn.MaxPool2d(2, return_indices=True)), "^1: cannot be packed: MaxPool2d returns indices"),
        (
            lambda: nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False)).eval(),
            "^0: .* without running statistics",
        ),
        (
            lambda: Forward(twice_in_place, activation=hnn.BinaryActivation(), relu=nn.ReLU(inplace=True)).eval(),
            "^relu: cannot be packed: it changes the input of add in place",
        ),
        (
            lambda: Forward(lambda net, x: torch.flatten(x, end_dim=1)).eval(),
            r"^flatten: expected Flatten\(1\), got Flatten\(start_dim=0, end_dim=1\)",
        ),
    ],
)
def test_a_layer_that_would_change_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        deploy.pack(make())


def test_smooth_activations_are_refused():
    net = nn.Sequential(hnn.BinaryActivation("htaf(hardness=0.0)")).eval()
    with hardening.smooth(net), pytest.raises(ValueError, match=r"^0: .* expected an activation of two levels"):
        deploy.pack(net)
    deploy.pack(net)


def test_parametrized_layers_are_packed_as_they_are():
    torch.manual_seed(0)
    net = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)), hnn.BinaryActivation()).eval()
    x = torch.randn(20, 4)
    assert torch.equal(deploy.pack(net)(x), net(x))


def test_tracing_leaves_no_trace():
    def forward(net, x):
        net.last = net.layer(x)
        return net.last

    net = Forward(forward, layer=nn.Linear(2, 2)).eval()
    deploy.pack(net)
    assert not hasattr(net, "last")


def test_windows_outside_the_image_are_refused():
    net = two_levels(nn.MaxPool2d(2, padding=1, dilation=2))
    x = torch.randn(1, 1, 1, 1)
    assert net(x).isinf().all()
    with pytest.raises(ValueError, match="expected an image that every window of MaxPool2d overlaps"):
        deploy.pack(net)(x)


def test_the_state_of_a_packed_network_holds_its_weights():
    torch.manual_seed(0)
    a, b = (
        deploy.pack(two_levels(hnn.BinaryLinear(9, 5), hnn.BinaryActivation(), hnn.HeavisideLinear(5, 4)))
        for _ in range(2)
    )
    x = torch.randn(30, 9)
    assert not torch.equal(a(x), b(x))
    b.load_state_dict(a.state_dict())
    assert torch.equal(a(x), b(x))


@pytest.mark.parametrize("change", [lambda net: net.half(), lambda net: net.to(torch.float64)])
def test_packed_networks_stay_in_float32(change):
    with pytest.raises(ValueError, match=r"^dtype: expected float32"):
        change(deploy.pack(two_levels(hnn.BinaryLinear(3, 3))))


def test_sums_beyond_exact_floats():
    """With 70 000 inputs of 256 levels the sums exceed 2**24; each is rounded once, as in the packed network."""
    torch.manual_seed(0)
    net = nn.Sequential(hnn.QuantizeInput(), hnn.BinaryLinear(70_000, 64)).eval()
    net[1].weight.data[:, 500:].abs_()
    x = 1 - 0.02 * torch.rand(8, 70_000)
    assert net(x).abs().max() * 256 > 2**24
    exact = (hnn.QuantizeInput()(x).double() @ net[1].binary_weight().double().T).float()
    assert torch.equal(net(x), exact)
    assert torch.equal(deploy.pack(net)(x), exact)


def test_convolutions_beyond_exact_floats():
    torch.manual_seed(0)
    layer = hnn.BinaryConv2d(70_000, 2, 1)
    layer.weight.data.abs_()
    x = hnn.QuantizeInput()(1 - 0.02 * torch.rand(3, 70_000, 1, 1))
    assert torch.equal(layer(x).flatten(1), x.flatten(1).double().sum(1, keepdim=True).float().expand(3, 2))


def test_files_with_an_unknown_option_are_refused(tmp_path):
    deploy.save(deploy.pack(nn.Sequential(nn.Conv2d(1, 1, 3)).eval()), tmp_path / "net")
    with safe_open(tmp_path / "net", framework="pt") as file:
        tensors, about = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()
    about["network"] = about["network"].replace("padding_mode", "padding_node")
    about["sha256"] = deploy.network.checksum(tensors, about["network"])
    save_file(tensors, tmp_path / "net", about)
    with pytest.raises(ValueError, match=r"damaged file .Conv2d: expected options of bias, .* got"):
        deploy.load(tmp_path / "net")
