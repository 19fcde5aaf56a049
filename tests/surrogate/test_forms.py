"""Every part that takes a surrogate takes it in every form, and refuses what is none in the same words."""

import pickle
from importlib.util import find_spec

import pytest
import snntorch as snn
import torch
from torch import nn

import htaf_snn
from htaf_snn import HTAF, functional, hardening, interop, models, profile, surrogate
from htaf_snn import nn as hnn
from htaf_snn.bench.peers import OutputOf
from htaf_snn.compare.matching import rescaled


class Learned(nn.Module):
    """A callable with a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(2.0))

    def forward(self, x):
        soft = torch.sigmoid(self.slope * x)
        return (x > 0).to(x.dtype) + soft - soft.detach()


class StepFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx, grad):
        return grad / (1 + ctx.saved_tensors[0].abs()) ** 2


FORMS = {
    "module": lambda: HTAF(beta=8.0),
    "learned module": lambda: HTAF(learn=("alpha",)),
    "specification": lambda: "htaf(beta=8)",
    "snntorch": lambda: "snntorch.atan(alpha=2)",
    "norse": lambda: "norse.super",
    "spikingjelly": lambda: "spikingjelly.atan",
    "sinabs": lambda: "sinabs.gaussian",
    "function": lambda: snn.surrogate.fast_sigmoid(slope=5),
    "callable module": Learned,
    "autograd function": lambda: StepFunction.apply,
    "rescaled": lambda: rescaled("htaf", "htaf", "none", slope=5.0),
}
PARTS = {
    "functional.spike": lambda s: lambda x: functional.spike(x, s),
    "functional.leaky": lambda s: lambda x: functional.leaky(x, beta=0.9, surrogate=s)[0],
    "functional.lif": lambda s: lambda x: functional.lif(x, v_th=0.3, surrogate=s)[0],
    "nn.Leaky": lambda s: hnn.Sequential(hnn.Leaky(0.9, surrogate=s)),
    "nn.LIF": lambda s: hnn.Sequential(hnn.LIF(v_th=0.3, surrogate=s)),
    "nn.BinaryActivation": lambda s: hnn.BinaryActivation(s),
    "nn.BinaryLinear": lambda s: hnn.BinaryLinear(8, 8, surrogate=s),
    "nn.BinaryConv2d": lambda s: nn.Sequential(nn.Unflatten(1, (3, 2)), hnn.BinaryConv2d(3, 3, 1, surrogate=s)),
    "nn.ConceptLayer": lambda s: nn.Sequential(nn.Flatten(0, 1), hnn.ConceptLayer(8, 8, surrogate=s)),
    "models.BinaryMLP": lambda s: nn.Sequential(
        nn.Flatten(0, 1), nn.Sigmoid(), models.BinaryMLP(8, [8], 8, surrogate=s, weight_surrogate=s)
    ),
    "models.DeepHeavisideNet": lambda s: nn.Sequential(
        nn.Flatten(0, 1), models.DeepHeavisideNet(8, [8], 8, surrogate=s)
    ),
    "models.BinaryResNet": lambda s: nn.Sequential(
        nn.Flatten(), nn.Unflatten(1, (1, 6, 8)), models.BinaryResNet(8, 1, 8, width=2, surrogate=s, weight_surrogate=s)
    ),
    "models.binarize": lambda s: models.binarize(nn.Sequential(nn.Linear(8, 8), nn.ReLU()), surrogate=s),
    "models.ICBM": lambda s: nn.Sequential(
        nn.Flatten(0, 1), models.ICBM(nn.Flatten(), n_concepts=8, n_classes=8, in_features=8, surrogate=s)
    ),
    "models.neuron, fused": lambda s: OutputOf(models.neuron("fused", s)),
    "models.neuron, snntorch": lambda s: OutputOf(models.neuron("snntorch", s)),
    "compare.rescaled": lambda s: rescaled(s, "htaf", "none", slope=2.0),
    "profile.measure": lambda s: lambda x: x * profile.measure(s, deltas=[0.5]).peak,
    "interop.SurrogateFunction": lambda s: interop.SurrogateFunction(s),
    "interop.SurrogateGradient": lambda s: lambda x: x * interop.SurrogateGradient(s)(x.detach(), 0.5),
}


def gradients(part, form):
    """The gradients with respect to (T, B, features) = (2, 6, 8) and the parameters of a part, and its output."""
    torch.manual_seed(0)
    run = PARTS[part](form)
    x = (2 * torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(1))).requires_grad_()
    y = run(x)
    (y * torch.linspace(-1, 1, y.numel()).view(y.shape)).sum().backward()
    parameters = run.parameters() if isinstance(run, nn.Module) else ()
    return torch.cat([x.grad.flatten(), *(p.grad.flatten() for p in parameters if p.grad is not None)]), y.detach()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("part", PARTS)
def test_every_part_takes_every_form(part, form):
    if form in ("spikingjelly", "sinabs") and find_spec(form) is None:
        pytest.skip(f"{form} is not installed")
    grad, y = gradients(part, FORMS[form]())
    expected_grad, expected = gradients(part, surrogate.resolve(FORMS[form]()))
    assert torch.equal(y, expected)
    torch.testing.assert_close(grad, expected_grad, rtol=0, atol=0)
    assert grad.isfinite().all() and grad.abs().sum() > 0


@pytest.mark.parametrize("part", PARTS)
def test_a_surrogate_reaches_the_part(part):
    """Another surrogate gives another gradient: none is replaced by a default."""
    one, other = gradients(part, "htaf(alpha=0.5)")[0], gradients(part, "atan(alpha=7)")[0]
    assert not torch.allclose(one, other)


class Wide(nn.Module):
    def forward(self, x):
        return torch.cat([x, x])


REFUSED = {
    "unknown": ("hatf", ValueError, "unknown surrogate 'hatf'; did you mean htaf"),
    "unknown in a library": (
        "snntorch.atam",
        ValueError,
        "unknown surrogate 'snntorch.atam'; did you mean snntorch.atan",
    ),
    "of another library": ("super", ValueError, r"unknown surrogate 'super'; did you mean norse\.super"),
    "unknown library": ("brian.atan", ValueError, "library: expected one of snntorch, norse, .* got 'brian'"),
    "unknown parameter": (
        "htaf(gamma=1)",
        ValueError,
        "gamma.*its parameters are: alpha, beta, normalized, learn, hardness",
    ),
    "hardness": ("htaf(hardness=1.5)", ValueError, r"hardness: expected a number within \[0, 1\], got 1.5"),
    "malformed": ("htaf(", ValueError, "expected a name or name"),
    "class": (HTAF, TypeError, r"expected an instance, got the class HTAF; write HTAF\(\)"),
    "autograd class": (StepFunction, TypeError, "write StepFunction.apply"),
    "number": (3, TypeError, "expected a module, its specification or a callable, got 3"),
    "None": (None, TypeError, "expected a module, its specification or a callable, got None"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("part", PARTS)
def test_every_part_refuses_in_the_same_words(part, case):
    form, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        gradients(part, form)


CALLED = [part for part in PARTS if part not in ("profile.measure", "interop.SurrogateGradient")]


@pytest.mark.parametrize("part", CALLED)
@pytest.mark.parametrize(
    ("function", "words"),
    [
        (Wide(), "surrogate: expected a callable from .* to spikes like it, got a torch.float32 tensor of shape"),
        (lambda x: (x > 0).double() + x.double() * 0, "got a torch.float64 tensor"),
        (lambda x: x > 0, "got a torch.bool tensor"),
        (snn.surrogate.atan, "got function; a factory of surrogates has to be called once"),
    ],
    ids=["shape", "float64", "bool", "factory"],
)
def test_a_callable_that_changes_shape_or_dtype_is_refused(part, function, words):
    with pytest.raises((TypeError, ValueError), match=words):
        gradients(part, function)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("form", ["snntorch.atan", "snnTorch's own", "norse.super", "sinabs.gaussian"])
def test_surrogates_of_libraries_keep_the_dtype(form, dtype):
    if form == "sinabs.gaussian" and find_spec("sinabs") is None:
        pytest.skip("sinabs is not installed")
    form = snn.surrogate.atan() if form == "snnTorch's own" else form
    x = torch.tensor([-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0], dtype=dtype, requires_grad=True)
    y = surrogate.resolve(form)(x)
    y.sum().backward()
    assert y.dtype == x.grad.dtype == dtype and y.tolist() == [0, 0, 0, float("sinabs" in str(form)), 1, 1, 1]
    assert hnn.BinaryActivation(form, (0, 1))(x).dtype == dtype


def test_a_library_that_is_not_installed_comes_with_its_command(monkeypatch):
    monkeypatch.setattr("htaf_snn.surrogate.libraries.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="surrogate: sinabs is not installed; pip install sinabs"):
        hnn.Leaky(0.9, surrogate="sinabs.gaussian")


@pytest.mark.parametrize("form", ["snntorch.atan(alpha=3)", "norse.super", "spikingjelly.atan", "sinabs.gaussian"])
def test_specifications_of_libraries_are_pickled(form):
    if find_spec(form.partition(".")[0]) is None:
        pytest.skip(f"{form.partition('.')[0]} is not installed")
    layer = pickle.loads(pickle.dumps(hnn.Leaky(0.9, surrogate=form)))
    x = torch.linspace(-2, 2, 9)
    assert torch.equal(layer.surrogate(x), surrogate.resolve(form)(x)) and layer.surrogate.name == form


@pytest.mark.parametrize("function", [torch.sigmoid, lambda x: (x >= 0).to(x.dtype) + x - x.detach()])
def test_activations_are_hard_in_eval_with_any_callable(function):
    activation, x = hnn.BinaryActivation(function, (0, 1)), torch.tensor([-0.1, 0.0, 0.1], requires_grad=True)
    assert activation.eval()(x).tolist() == [0, 0, 1]
    assert torch.equal(torch.autograd.grad(activation(x).sum(), x)[0], torch.autograd.grad(function(x).sum(), x)[0])


def test_htaf_is_the_same_wherever_it_is_written():
    default = repr(HTAF())
    for part in (hnn.Leaky(0.9), hnn.LIF(), hnn.BinaryActivation(), models.BinaryMLP(4, [4], 2, surrogate="htaf")[4]):
        assert repr(part.surrogate) == default == repr(surrogate.resolve("htaf"))


def test_foreign_surrogates_have_no_smooth_step():
    foreign = surrogate.resolve(snn.surrogate.atan())
    with pytest.raises(ValueError, match="hardness: expected 1 for a callable"):
        foreign.hardness = 0.5
    with pytest.raises(ValueError, match="hardness: expected 1 for a callable"):
        functional.smooth(torch.zeros(2), foreign)
    with pytest.raises(ValueError, match="expected none beside a callable, got alpha"):
        functional.spike(torch.zeros(2), foreign, alpha=2.0)
    assert hardening.is_hard(hnn.Leaky(0.9, surrogate=foreign)) and htaf_snn.surrogate.resolve(foreign) is foreign
