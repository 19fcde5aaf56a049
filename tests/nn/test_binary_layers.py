"""Binary layers, their surrogates, and the networks made of them."""

import pytest
import torch
from torch import nn

from htaf_snn import deploy, hardening, models
from htaf_snn import nn as hnn
from htaf_snn.nn.binary import exact_grid

# Published derivatives with respect to x of each surrogate's stand-in for sign(x).
PUBLISHED = {
    "clipped_ste": lambda x: (x.abs() <= 1).double(),
    "approx_sign": lambda x: (2 - 2 * x.abs()).clamp(min=0),
    "swish_sign": lambda x: 5 * (2 - 5 * x * torch.tanh(2.5 * x)) / (1 + torch.cosh(5 * x)),
    "ede(t=0.5)": lambda x: max(1 / 0.5, 1) * 0.5 * (1 - torch.tanh(0.5 * x) ** 2),
    "ede(t=5)": lambda x: 5 * (1 - torch.tanh(5 * x) ** 2),
    "htaf": lambda x: 2 * _htaf(x),
    "htaf(alpha=3, beta=6)": lambda x: 2 * _htaf(x, 3, 6),
}


def _htaf(x, alpha=1, beta=4):
    h = torch.sigmoid(beta * torch.tanh(alpha * x))
    return alpha * beta * h * (1 - h) * (1 - torch.tanh(alpha * x) ** 2)


def sample():
    return torch.cat([torch.randn(99).double() * 1.5, torch.tensor([0.0, -0.0, 1.0, -1.0, 0.5, -0.5]).double()])


@pytest.mark.parametrize("name", PUBLISHED)
def test_gradients_are_the_published_ones(name):
    x = sample().requires_grad_()
    y = hnn.BinaryActivation(name)(x)
    y.sum().backward()
    assert torch.equal(y, torch.where(x > 0, 1.0, -1.0).double())
    torch.testing.assert_close(x.grad, PUBLISHED[name](x.detach()), rtol=1e-12, atol=1e-14)
    weights = hnn.BinaryLinear(len(x), 1, surrogate=name).double()
    weights.weight.data.copy_(x.detach()[None])
    weights(torch.ones(1, len(x)).double()).sum().backward()
    torch.testing.assert_close(weights.weight.grad[0], x.grad)


def test_the_magnitude_aware_gradient():
    """Bi-Real Net: the gradient of mean |w| sign(w) is mean |w| within [-1, 1], the magnitude taken as a constant."""
    layer = hnn.BinaryLinear(105, 1, scale="magnitude").double()
    layer.weight.data.copy_(sample()[None])
    w = layer.weight.detach()
    y = layer(torch.ones(1, 105).double())
    torch.testing.assert_close(y, w.abs().mean() * torch.where(w > 0, 1.0, -1.0).sum().view(1, 1).double())
    y.sum().backward()
    torch.testing.assert_close(layer.weight.grad, w.abs().mean() * (w.abs() <= 1).double())


@pytest.mark.parametrize("levels", [(-1, 1), (0, 1)])
def test_smooth_in_training_and_hard_in_eval(levels):
    activation = hnn.BinaryActivation("htaf(alpha=2, beta=4, normalized=True, hardness=0.0)", levels).double()
    x = sample().requires_grad_()
    span = (torch.sigmoid(4 * torch.tanh(2 * x)) - torch.sigmoid(torch.tensor(-4.0))) / torch.tanh(torch.tensor(2.0))
    expected = span * (levels[1] - levels[0]) + levels[0]
    torch.testing.assert_close(activation(x), expected.double(), rtol=1e-6, atol=1e-6)
    activation.eval()
    hard = activation(x)
    assert torch.equal(hard, torch.where(x > 0, *map(float, reversed(levels))).double())
    with hardening.smooth(activation):
        torch.testing.assert_close(activation(x), expected.double(), rtol=1e-6, atol=1e-6)
    assert torch.equal(activation(x), hard)
    spiking = hnn.BinaryActivation("htaf(alpha=2, beta=4)", levels).double()
    assert torch.equal(spiking(x), hard)


def test_shifts_of_channels():
    activation = hnn.BinaryActivation(levels=(0, 1), channels=3)
    activation.shift.data = torch.tensor([-1.0, 0.0, 1.0])
    x = torch.zeros(2, 3, 4, 5) + 0.5
    assert activation(x).mean((0, 2, 3)).tolist() == [1, 1, 0]
    activation(x).sum().backward()
    assert (activation.shift.grad < 0).all()
    rprelu = hnn.RPReLU(2)
    rprelu.before.data, rprelu.after.data = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 3.0])
    assert rprelu(torch.tensor([[0.0, -4.0]])).tolist() == [[-0.25, 2.0]]


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("scale", ["none", "learned", "magnitude"])
def test_convolution_with_binary_weights(groups, scale):
    layer = hnn.BinaryConv2d(6, 9, (3, 2), (2, 1), (1, 0), (1, 2), groups, bias=True, scale=scale).double()
    layer.bias.data.normal_()
    if scale == "learned":
        layer.scale.data.normal_()
    x = torch.randn(2, 6, 7, 8).double()
    factor = {"none": torch.ones(9), "learned": layer.scale, "magnitude": layer.weight.abs().mean((1, 2, 3))}[scale]
    signs = torch.where(layer.weight > 0, 1.0, -1.0).double()
    expected = nn.functional.conv2d(x, signs, None, (2, 1), (1, 0), (1, 2), groups) * factor.view(-1, 1, 1)
    torch.testing.assert_close(layer(x), expected + layer.bias.view(-1, 1, 1))


def test_a_padded_place_counts_nothing():
    layer = hnn.BinaryConv2d(1, 1, 3, padding=1)
    layer.weight.data.fill_(1)
    assert layer(torch.ones(1, 1, 3, 3))[0, 0].tolist() == [[4, 6, 4], [6, 9, 6], [4, 6, 4]]


def test_weights_that_are_zero_are_lower():
    layer = hnn.BinaryLinear(3, 1)
    layer.weight.data = torch.tensor([[0.0, -0.0, 1e-45]])
    assert layer.binary_weight().tolist() == [[-1, -1, 1]]


def test_sums_of_heaviside_layers_do_not_depend_on_the_order():
    layer = hnn.HeavisideLinear(1000, 7).eval()
    layer.weight.data *= torch.logspace(-6, 6, 7)[:, None]
    x = torch.randint(2, (50, 1000)).float()
    weight = layer.exact_weight().double()
    assert ((weight - layer.weight).abs() <= exact_grid(layer.weight)[:, None] / 2).all()
    exact = x.double() @ weight.T
    assert torch.equal(layer(x).double() - layer.bias.double(), (exact.float() + layer.bias).double() - layer.bias)
    for _ in range(3):
        order = torch.randperm(1000)
        assert torch.equal((x[:, order] @ layer.exact_weight()[:, order].T).double(), exact)
    layer.train()
    torch.testing.assert_close(layer(x), nn.functional.linear(x, layer.weight, layer.bias), rtol=1e-4, atol=1e-4)


def test_quantized_inputs():
    x = torch.rand(1000).requires_grad_()
    y = hnn.QuantizeInput()(x)
    assert torch.equal(y * 256, torch.round(x.detach() * 255))
    y.sum().backward()
    assert torch.equal(x.grad, torch.ones(1000))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: hnn.BinaryActivation(levels=(0, 2)), ValueError, "^levels: expected"),
        (lambda: hnn.BinaryActivation("hat"), ValueError, "unknown surrogate 'hat'"),
        (lambda: hnn.BinaryActivation(3), TypeError, "^surrogate: expected a module, its specification"),
        (lambda: hnn.BinaryLinear(2, 2, scale="big"), ValueError, "^scale: expected one of none"),
        (lambda: hnn.BinaryConv2d(4, 2, 3, groups=3), ValueError, "^groups: expected a divisor"),
        (lambda: hnn.BinaryConv2d(4, 2, 3, padding="same"), ValueError, "^padding: expected an integer or two"),
        (lambda: hnn.HeavisideConv2d(4, 2, 3, padding=1, padding_mode="reflect"), ValueError, "^padding, padding_mode"),
        (lambda: models.BinaryResNet(9), ValueError, "^depth: expected 8, 14, 20"),
        (lambda: models.ReLUResNet(9), ValueError, "^depth: expected 8, 14, 20"),
        (lambda: models.binarize(nn.Sequential(), skip=["stem"]), ValueError, "^skip: expected names of modules"),
        (lambda: models.BinaryMLP(4, [2], 2, surrogate="hat"), ValueError, "unknown surrogate"),
        (lambda: models.BinaryMLP(4, 64, 2), ValueError, "^hidden: expected one or more positive integers, got 64"),
        (lambda: models.DeepHeavisideNet(4, [0], 2), ValueError, r"^hidden: expected one or .*, got \[0\]"),
        (lambda: models.ReLUNet(4, [], 2), ValueError, r"^hidden: expected one or .*, got \[\]"),
        (lambda: models.SpikingMLP(4, "8", 2, nn.Identity), ValueError, "^hidden: expected one or .*, got '8'"),
        (lambda: models.SpikingCNN((1, 8, 8), [2.0], 2, nn.Identity), ValueError, r"^channels: .*, got \[2\.0\]"),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_binarize_keeps_the_skipped_modules():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Sequential(nn.Conv2d(4, 4, 3, bias=False), nn.ReLU()))
    net.add_module("head", nn.Linear(4, 2))
    weight = net[2][0].weight.detach().clone()
    assert models.binarize(net, skip=["0", "head"]) is net
    kinds = [type(layer) for layer in (*net[:2], *net[2], net.head)]
    assert kinds == [nn.Conv2d, hnn.BinaryActivation, hnn.BinaryConv2d, hnn.BinaryActivation, nn.Linear]
    assert torch.equal(net[2][0].weight, weight)
    assert net[1].surrogate is not net[2][1].surrogate


def test_summary_counts_bits():
    summary = models.summary(models.BinaryMLP(784, [1024, 1024], 10))
    assert summary["parameters"] == 784 * 1024 + 1024**2 + 10 * 1025 + 2 * 4 * 1024
    assert summary["bits"] == 784 * 1024 + 1024**2 + 32 * (10 * 1025 + 2 * 4 * 1024)
    assert summary["float_bits"] == 32 * summary["parameters"]
    assert [layer["type"] for layer in summary["layers"]][:2] == ["BinaryLinear", "BatchNorm1d"]


@pytest.mark.parametrize(
    "net",
    [
        models.BinaryMLP(16, [8, 8], 3),
        models.DeepHeavisideNet(16, [8, 8], 3),
        models.DeepHeavisideNet((1, 4, 4), [4, 8], 3),
        models.BinaryResNet(8, 1, 3, width=4),
    ],
    ids=["BinaryMLP", "DeepHeavisideNet", "convolutional", "BinaryResNet"],
)
def test_every_parameter_gets_a_gradient(net):
    net(torch.rand(5, 1, 4, 4)).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    assert all((p.grad != 0).any() for n, p in net.named_parameters() if "weight" in n)


def test_models_can_be_sliced():
    x = torch.rand(2, 1, 8, 8)
    for net in (
        models.BinaryMLP(64, [8], 3),
        models.DeepHeavisideNet(64, [8], 3),
        models.BinaryResNet(8, 1, 3, width=4),
        models.ImageEncoder(1, 4),
    ):
        net.eval()
        assert torch.equal(net[-1](net[:-1](x)), net(x))
        assert {*net[1:].state_dict()} <= {*net.state_dict()}  # names stay, as those of torch's own


def sequence_layers():
    """Layers over features and the reference of each, sample by sample."""
    binary = hnn.BinaryLinear(4, 4, bias=True, scale="learned")
    binary.scale.data.normal_()
    binary.bias.data.normal_()
    magnitude = hnn.BinaryLinear(4, 4, bias=True, scale="magnitude")
    magnitude.bias.data.normal_()
    return [binary, magnitude, hnn.HeavisideLinear(4, 4).eval()]


@pytest.mark.parametrize("number", range(3))
def test_linear_layers_take_sequences_and_single_vectors(number):
    layer = sequence_layers()[number]
    x = torch.randn(4, 4, 4)
    torch.testing.assert_close(layer(x), torch.stack([layer(sample) for sample in x]))
    torch.testing.assert_close(layer(x)[0, 0], layer(x[0, :1])[0])
    torch.testing.assert_close(layer(x[0, 0]), layer(x[0, :1])[0])


@pytest.mark.parametrize("kind", [hnn.BinaryConv2d, hnn.HeavisideConv2d])
def test_convolutions_take_single_images(kind):
    layer = kind(4, 4, 3, padding=1, bias=True, **({"scale": "learned"} if kind is hnn.BinaryConv2d else {})).eval()
    for name in ("bias", "scale"):
        if hasattr(layer, name):
            getattr(layer, name).data.normal_()
    x = torch.randn(4, 4, 4)
    torch.testing.assert_close(layer(x), layer(x[None])[0])


@pytest.mark.parametrize("make", [lambda n: hnn.BinaryActivation(channels=n), hnn.RPReLU])
def test_channels_are_recognised_or_refused(make):
    layer = make(4)
    (layer.shift if hasattr(layer, "shift") else layer.before).data.normal_()
    x = torch.randn(3, 4)
    assert torch.equal(layer(x)[0], layer(x[0]))
    assert torch.equal(layer(x[:, :, None, None].expand(3, 4, 2, 5))[:, :, 1, 2], layer(x))
    for shape in [(4, 4, 4), (2, 4, 7)]:
        with pytest.raises(ValueError, match=r"^x: expected \(4\), \(B, 4\) or \(B, 4, H, W\), got .*; flatten"):
            layer(torch.randn(shape))
    for shape in [(4, 1), (4, 5, 4, 4), (3,)]:
        with pytest.raises(ValueError, match=r"^x: expected \(4\), \(B, 4\) or \(B, 4, H, W\), got"):
            layer(torch.randn(shape))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("images", "got"),
    [
        (torch.randn(64, 16), "-.*; scale the images.* does"),
        (255 * torch.rand(4, 16), "[0-9].*; scale the images.* does; for 8-bit images write x / 255"),
        (500 + torch.rand(4, 16), "5.*; scale the images.* does"),
        (torch.full((2, 16), torch.nan), "NaN"),
        (1 + 1e-3 * torch.ones(1, 16), "1.*; scale the images.* does"),
    ],
)
def test_images_out_of_range_are_refused(images, got, training):
    net = models.BinaryMLP(16, [8], 3).train(training)
    with pytest.raises(ValueError, match=rf"^x: expected values within \[0, 1\], got {got}$"):
        net(images)
    with pytest.raises(TypeError, match=r"torch\.uint8 .*; write x\.float\(\) \(8-bit images: x\.float\(\) / 255"):
        net((255 * torch.rand(4, 16)).to(torch.uint8))


def test_resampled_images_may_overshoot_by_rounding():
    images = torch.nn.functional.interpolate(torch.ones(1, 1, 28, 28), (17, 19), mode="bilinear", antialias=True)
    assert images.max() > 1
    assert torch.equal(hnn.QuantizeInput()(images), hnn.QuantizeInput()(torch.ones_like(images)))


@pytest.mark.thorough
def test_the_range_is_checked_under_transformations():
    quantize, x = hnn.QuantizeInput(), torch.rand(3, 4)
    expected = quantize(x)
    compiled = torch.compile(quantize, fullgraph=True, dynamic=True)
    exported = torch.export.export(quantize.eval(), (x,)).module()
    for form in (compiled, exported, torch.fx.symbolic_trace(quantize)):
        assert torch.equal(form(x), expected)
        with pytest.raises(RuntimeError, match="expected values within"):
            form(x + 1)
    for form in (torch.vmap(quantize), torch.vmap(torch.func.grad(lambda row: quantize(row).sum()))):
        form(x)
        with pytest.raises(ValueError, match=r"^x: expected values within"):
            form(x + 1)
    assert quantize(x.to("meta")).shape == (3, 4)


def test_what_layers_share_is_counted_once():
    one, other = nn.Linear(5, 5, bias=False), nn.Linear(5, 5, bias=False)
    other.weight = one.weight
    assert models.summary(nn.Sequential(one, other, nn.BatchNorm1d(5)))["parameters"] == 25 + 20


@pytest.mark.parametrize(
    "net", [models.DeepHeavisideNet(16, [8], 3), models.ReLUNet(16, [8], 3), models.BinaryResNet(8, 1, 3, width=4)]
)
def test_8_bit_images_are_refused_with_a_remedy(net):
    with pytest.raises(TypeError, match=r"^x: expected a floating-point tensor, got a torch\.uint8 .*; write x\.float"):
        net.eval()(torch.zeros(2, 1, 4, 4, dtype=torch.uint8))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("make", [lambda: models.BinaryMLP(16, [8], 3), lambda: models.DeepHeavisideNet(16, [8, 8], 3)])
def test_half_precision_has_scores_in_eval(make, dtype):
    torch.manual_seed(0)
    net, x = make().eval(), torch.rand(32, 16)
    scores = net.to(dtype)(x.to(dtype)).float()
    assert scores.isfinite().all() and scores.std() > 0


def test_inputs_of_another_range_are_quantized_and_packed(tmp_path):
    torch.manual_seed(0)
    net = models.BinaryMLP(6, (16,), 3, input_range=(-3, 3))
    x = 6 * torch.rand(50, 2, 3) - 3
    for _ in range(3):
        net(x)
    packed, scores = deploy.pack(net.eval()), net(x)
    assert torch.equal(packed(x), scores)
    deploy.save(packed, tmp_path / "net.safetensors")
    assert torch.equal(deploy.load(tmp_path / "net.safetensors")(x), scores)
    levels = (255 * (x + 3) / 6).round() / 256
    assert torch.equal(net[1](x), levels)
    leaf = x.clone().requires_grad_()
    net[1](leaf).sum().backward()
    torch.testing.assert_close(leaf.grad, torch.full_like(x, 1 / 6))
    for use in (net, packed):
        with pytest.raises(ValueError, match=r"^x: expected values within \[-3, 3\], got .* give QuantizeInput their"):
            use(x + 1)
    found = hnn.QuantizeInput.of_data([(x[:25], None), (x[25:], None)])
    assert (found.low, found.high) == (x.min().item(), x.max().item())
    for wrong in ((1, 1), (0, float("inf")), (2, 1)):
        with pytest.raises(ValueError, match=r"^input_range: expected finite low < high, got"):
            models.BinaryMLP(6, (16,), 3, input_range=wrong)
