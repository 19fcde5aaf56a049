"""Networks made binary in place: what was set on a layer stays, and what stays real is named."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import prune

from htaf_snn import models
from htaf_snn import nn as hnn


def test_shared_modules_are_replaced_everywhere_and_stay_shared():
    relu, block = nn.ReLU(), nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    net = models.binarize(nn.Sequential(nn.Linear(4, 4), relu, block, relu, block))
    assert not any(isinstance(module, (nn.ReLU, nn.Linear)) for module in net.modules())
    assert net[1] is net[3] and net[2] is net[4] and net[2][0] is net[4][0]
    skipped = models.binarize(nn.Sequential(relu, relu), skip=["1"])
    assert [type(layer) for layer in skipped] == [hnn.BinaryActivation, nn.ReLU]


def test_what_was_set_on_a_layer_stays():
    layer = nn.Conv2d(2, 4, 3, bias=True, dtype=torch.float64)
    layer.weight.requires_grad_(False)
    layer.note, seen = "mine", []
    layer.register_forward_pre_hook(lambda module, inputs: seen.append(1))
    handle = layer.register_forward_hook(lambda module, inputs, output: seen.append(2))
    tied = nn.Conv2d(2, 4, 3, dtype=torch.float64)
    tied.weight = layer.weight
    weight, bias = layer.weight, layer.bias
    net = models.binarize(nn.ModuleList([layer.eval(), tied, nn.ReLU()]))
    assert net[0].weight is net[1].weight is weight and net[0].bias is bias
    assert (net[0].training, net[1].training, net[0].note) == (False, True, "mine")
    assert net[0](torch.randn(1, 2, 5, 5, dtype=torch.float64)).dtype == torch.float64
    handle.remove()
    net[0](torch.randn(1, 2, 5, 5, dtype=torch.float64))
    assert seen == [1, 2, 1]


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.relu = nn.Linear(3, 3), nn.ReLU()

    def forward(self, x):
        return self.relu(functional.relu(self.layer(x)))


class Untraceable(Functional):
    def forward(self, x):
        return self.rectified(self.layer(x)) if x.sum() > 0 else self.relu(x)

    def rectified(self, x):
        return x.relu()


class Attribute(Functional):
    def __init__(self):
        super().__init__()
        self.activation = torch.relu

    def forward(self, x):
        return self.relu(self.activation(x))


class Calls(Functional):
    def forward(self, x):
        return functional.silu(torch.tanh(self.layer(x)).sigmoid())


class Modules(Functional):
    def forward(self, x):
        return self.layer(self.relu(x))


class Other(nn.Linear):
    pass


@pytest.mark.parametrize(
    ("net", "name"),
    [
        (Functional(), r"relu\(\) of the model itself"),
        (nn.Sequential(Functional()), r"relu\(\) of 0;"),
        (nn.Sequential(Attribute()), r"relu\(\) of 0;"),
        (nn.Sequential(nn.Linear(3, 3), Other(3, 3)), "Other of 1;"),
        (
            nn.Sequential(nn.Linear(3, 3), nn.GELU(), nn.Tanh(), nn.Softmax(1)),
            "GELU of 1, Tanh of 2; skip the modules that are to stay, as in skip=..1..; only nn.ReLU, ",
        ),
        (nn.Sequential(Calls()), r"(silu|tanh|sigmoid)\(\) of 0;"),
    ],
)
def test_what_stays_real_is_named(net, name):
    with pytest.warns(UserWarning, match=f"^model: these stay as they are: {name}") as warned:
        models.binarize(net)
    # A function that the model's own forward calls has no name that could be skipped.
    assert ("skip" in str(warned[0].message)) == ("model itself" not in name)


def test_a_network_that_cannot_be_traced_is_named():
    with pytest.warns(UserWarning, match=r"^model: expected one that torch\.fx can trace; look for functions"):
        assert isinstance(models.binarize(nn.Sequential(Untraceable()))[0].relu, hnn.BinaryActivation)


class Calling(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.call = lambda x: function(x)

    def forward(self, x):
        return self.call(x)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        *((name, getattr(functional, name)) for name in (
            "celu", "celu_", "elu", "elu_", "gelu", "glu", "hardshrink", "hardsigmoid", "hardswish", "hardtanh",
            "hardtanh_", "leaky_relu", "leaky_relu_", "logsigmoid", "mish", "relu", "relu_", "relu6", "rrelu", "rrelu_",
            "selu", "selu_", "sigmoid", "silu", "softplus", "softshrink", "softsign", "tanh", "tanhshrink",
        )),
        ("prelu", lambda x: functional.prelu(x, torch.ones(1))),
        ("threshold", lambda x: functional.threshold(x, 0.0, 1.0)),
        ("threshold_", lambda x: functional.threshold_(x, 0.0, 1.0)),
        *((name, getattr(torch, name)) for name in (
            "celu", "celu_", "relu", "relu_", "rrelu", "rrelu_", "selu", "selu_", "sigmoid", "sigmoid_", "tanh",
            "tanh_",
        )),
        *((name, lambda x, name=name: getattr(x, name)()) for name in (
            "hardshrink", "relu", "relu_", "sigmoid", "sigmoid_", "tanh", "tanh_",
        )),
    ],
)  # fmt: skip
def test_every_activation_function_is_named(name, function):
    with pytest.warns(UserWarning, match=rf"^model: these stay as they are: {name}\(\) of 1; skip the modules that"):
        models.binarize(nn.Sequential(nn.Linear(4, 4), Calling(function)))


def test_nothing_is_said_of_modules_and_of_what_is_skipped():
    assert isinstance(models.binarize(Modules()).relu, hnn.BinaryActivation)
    models.binarize(nn.Sequential(nn.Linear(3, 3), Functional(), nn.GELU()), skip=["1", "2"])


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        self.relu(x)
        return x + 1


def pruned():
    layer = nn.Linear(3, 3)
    prune.random_unstructured(layer, "weight", amount=0.5)
    return nn.Sequential(nn.Linear(3, 3), layer)


def used_twice():
    block = nn.Sequential(nn.Linear(3, 3))
    return nn.Sequential(block, nn.Sequential(block))


@pytest.mark.parametrize(
    ("make", "skip", "error", "message"),
    [
        (
            Functional,
            "layer",
            TypeError,
            r"^skip: expected a list of names of modules, such as \['layer'\], got 'layer'",
        ),
        (Functional, ["fc"], ValueError, "^skip: expected names of modules, such as 'layer', 'relu', got 'fc'"),
        (Functional, [0], ValueError, "^skip: expected names of modules, .* got 0"),
        (used_twice, ["0"], ValueError, r"^skip: 0 is used elsewhere too, as in 1\.0\.0"),
        (lambda: nn.Linear(2, 2), [], ValueError, "^model: expected a network with layers in it"),
        (lambda: nn.Sequential(nn.LazyLinear(3)), [], ValueError, "^0: expected a layer of known size"),
        (pruned, [], ValueError, "^1: expected a plain layer, got weight_orig, weight_mask"),
        (lambda: nn.Sequential(nn.Linear(3, 3), nn.Conv2d(1, 1, 3, padding="same")), [], ValueError, "^1: .* 'same'"),
        (InPlace, [], ValueError, "^relu: changes its input in place, which add uses; use its result"),
    ],
)
def test_nothing_is_replaced_where_something_cannot_be(make, skip, error, message):
    net = make()
    before = [type(module) for module in net.modules()]
    with pytest.raises(error, match=message):
        models.binarize(net, skip=skip)
    assert [type(module) for module in net.modules()] == before


class Listed(Functional):
    def __init__(self):
        super().__init__()
        self.stages = [self.layer, self.relu]

    def forward(self, x):
        for stage in self.stages:
            x = stage(x)
        return x


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (Listed, r"^model\.stages: expected layers in submodules alone, as in nn\.ModuleList"),
        (lambda: nn.Sequential(nn.TransformerEncoderLayer(4, 2, 8)), "^0: expected to be skipped"),
    ],
)
def test_layers_used_past_their_place_are_refused(net, message):
    net = net()
    before = [type(module) for module in net.modules()]
    with pytest.raises(ValueError, match=message):
        models.binarize(net, skip=["0.self_attn"] if isinstance(net, nn.Sequential) else [])
    assert [type(module) for module in net.modules()] == before
