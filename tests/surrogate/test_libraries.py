"""Every surrogate of every library under one name, exactly; and ours inside SpikingJelly and sinabs."""

import math
import pickle
from importlib.util import find_spec

import pytest
import torch

from htaf_snn import HTAF, surrogate
from htaf_snn.interop import SurrogateFunction, SurrogateGradient
from htaf_snn.surrogate import libraries

needs = {
    library: pytest.mark.skipif(find_spec(library) is None, reason=f"{library} is not installed")
    for library in libraries.LIBRARIES
}
X = torch.linspace(-3, 3, 61)


def gradient(step, x=X):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(step(x).sum(), x)[0]


@pytest.mark.parametrize("library", [pytest.param(name, marks=needs[name]) for name in libraries.LIBRARIES])
def test_every_surrogate_of_a_library_resolves(library):
    specifications = surrogate.names(library)
    assert len(specifications) >= {"snntorch": 10, "norse": 6, "spikingjelly": 16, "sinabs": 5}[library]
    at_zero = 0.0 if library in ("snntorch", "norse") else 1.0
    for spec in specifications:
        step = surrogate.resolve(spec)
        if spec == "snntorch.LSO":
            with pytest.raises(TypeError):
                step(X)
            continue
        spikes = step(torch.tensor([-0.5, 0.0, 0.5]))
        assert spikes.tolist() == [0.0, at_zero, 1.0], spec
        if spec == "norse.heaviside":
            assert not step(X.clone().requires_grad_()).requires_grad
        else:
            assert gradient(step).shape == X.shape
        for dtype in (torch.float64, torch.bfloat16):
            assert step(torch.tensor([-0.5, 0.5], dtype=dtype)).dtype == dtype, spec


@pytest.mark.parametrize("library", [pytest.param(name, marks=needs[name]) for name in libraries.LIBRARIES])
def test_faults_belong_to_surrogates_and_are_true_to_life(library):
    known = {name.partition(".")[2] for name in surrogate.names(library)}
    assert set(libraries.LIBRARIES[library].FAULTS) <= known


@needs["spikingjelly"]
def test_spikingjellys_own_code_computes():
    from spikingjelly.activation_based import surrogate as theirs

    for spec, peer in (
        ("spikingjelly.erf(alpha=3)", theirs.Erf(alpha=3.0)),
        ("spikingjelly.piecewise_quadratic", theirs.PiecewiseQuadratic()),
        ("spikingjelly.s2nn(alpha=2)", theirs.S2NN(alpha=2.0)),
        ("spikingjelly.atan", theirs.ATan()),
    ):
        assert torch.equal(gradient(surrogate.resolve(spec)), gradient(peer))
    peaks = {name: gradient(surrogate.resolve(f"spikingjelly.{name}")).max() for name in ("erf", "piecewise_exp")}
    assert peaks["erf"] == pytest.approx(2 / math.sqrt(math.pi), rel=1e-5)
    assert peaks["piecewise_exp"] == pytest.approx(0.5, rel=1e-5)


@needs["sinabs"]
def test_sinabs_own_code_computes_at_threshold_one():
    import sinabs.activation as theirs

    for spec, peer in (
        ("sinabs.single_exponential(grad_width=0.3)", theirs.SingleExponential(grad_width=0.3)),
        ("sinabs.gaussian", theirs.Gaussian()),
        ("sinabs.heaviside(window=0.5)", theirs.Heaviside(window=0.5)),
        ("sinabs.multi_gaussian", theirs.MultiGaussian()),
        ("sinabs.periodic_exponential", theirs.PeriodicExponential()),
    ):
        torch.testing.assert_close(gradient(surrogate.resolve(spec)), peer(X + 1.0, 1.0), rtol=0, atol=0)


@needs["snntorch"]
@needs["norse"]
def test_faults_are_as_described():
    assert gradient(surrogate.resolve("snntorch.sigmoid"), torch.tensor([-4.0])).isnan().all()
    assert gradient(surrogate.resolve("snntorch.triangular")).unique().tolist() == [-1.0, 1.0]
    assert torch.equal(gradient(surrogate.resolve("norse.super(alpha=1)")), gradient(surrogate.resolve("norse.super")))
    assert gradient(surrogate.resolve("snntorch.atan")).max() == 1
    assert surrogate.fault("snntorch.fast_sigmoid") is surrogate.fault("htaf(beta=8)") is None


@pytest.mark.parametrize("library", libraries.LIBRARIES)
def test_a_library_that_is_not_installed_is_named_with_the_remedy(library, monkeypatch):
    monkeypatch.setattr(libraries, "find_spec", lambda name: None if name == library else find_spec(name))
    for call in (lambda: surrogate.resolve(f"{library}.atan"), lambda: surrogate.names(library)):
        with pytest.raises(ImportError, match=f"{library} is not installed; pip install {library}"):
            call()


def test_unknown_libraries_are_refused():
    with pytest.raises(ValueError, match="library: expected one of snntorch, norse, spikingjelly, sinabs, got 'brian'"):
        surrogate.resolve("brian.atan")
    with pytest.raises(ValueError, match="library: expected one of snntorch"):
        surrogate.names("brian")
    assert not any("." in name for name in surrogate.names())


@pytest.mark.parametrize(
    ("library", "spec", "message"),
    [
        (
            "spikingjelly",
            "spikingjelly.hat",
            "unknown surrogate 'spikingjelly.hat'; expected one of: spikingjelly.atan, spikingjelly.erf",
        ),
        ("spikingjelly", "spikingjelly.atan(width=1)", "surrogate 'spikingjelly.atan': .*width"),
        ("sinabs", "sinabs.hat", "unknown surrogate 'sinabs.hat'; expected one of: sinabs.gaussian, sinabs.heaviside"),
        ("sinabs", "sinabs.gausian", "; did you mean sinabs.gaussian"),
        ("sinabs", "sinabs.gaussian(width=1)", "surrogate 'sinabs.gaussian': .*width"),
    ],
)
def test_bad_names_and_parameters(library, spec, message):
    if find_spec(library) is None and library == "spikingjelly":
        pytest.skip("spikingjelly is not installed")
    if find_spec(library) is None:
        pytest.skip("sinabs is not installed")
    with pytest.raises(ValueError, match=message):
        surrogate.resolve(spec)


def test_htaf_keeps_spikingjellys_convention_at_zero():
    function = SurrogateFunction(HTAF(beta=6.0))
    x = torch.tensor([-1.0, -0.0, 0.0, 1.0])
    assert function(x).tolist() == [0, 1, 1, 1]
    assert torch.equal(gradient(function), gradient(HTAF(beta=6.0)))
    function.set_spiking_mode(False)
    assert torch.equal(function(X), HTAF(beta=6.0, hardness=0.0)(X))
    assert torch.equal(gradient(pickle.loads(pickle.dumps(function))), gradient(HTAF(beta=6.0, hardness=0.0)))
    with pytest.raises(TypeError, match="expected an instance, got the class HTAF"):
        SurrogateFunction(HTAF)


@pytest.mark.parametrize(
    "given",
    [
        "htaf(beta=6)",
        "snntorch.atan",
        pytest.param("spikingjelly.atan", marks=needs["spikingjelly"]),
        lambda x: (x > 0).to(x) + x - x.detach(),
    ],
)
def test_spikingjelly_takes_surrogates_in_any_form(given):
    function, x = SurrogateFunction(given), torch.tensor([-1.0, -0.0, 0.0, 0.5, 1.0])
    y = torch.where(x == 0, 1.0, surrogate.resolve(given)(x))
    assert function.spiking and torch.equal(function(x), y)
    if given == "htaf(beta=6)":
        function.surrogate.hardness = 0.3
        assert not function.spiking and torch.equal(function(x), HTAF(beta=6.0, hardness=0.3)(x))
        function.set_spiking_mode(True)
        assert function.spiking and torch.equal(function(x), y)
    else:
        with pytest.raises(ValueError, match="hardness: expected 1 for a callable"):
            function.set_spiking_mode(False)


@needs["spikingjelly"]
def test_htaf_inside_a_spikingjelly_neuron():
    from spikingjelly.activation_based import neuron

    node = neuron.IFNode(surrogate_function=SurrogateFunction(HTAF()), v_threshold=1.0)
    current = torch.tensor([0.4, 1.0, 2.5], requires_grad=True)
    spikes = node(current)
    assert spikes.tolist() == [0, 1, 1]
    torch.testing.assert_close(torch.autograd.grad(spikes.sum(), current)[0], gradient(HTAF(), current.detach() - 1))


def test_htaf_as_sinabs_gradient():
    function = SurrogateGradient(HTAF(alpha=2.0))
    for threshold in (1.0, 0.5, torch.tensor(2.0)):
        torch.testing.assert_close(function(X, threshold), gradient(HTAF(alpha=2.0), X - threshold))
    assert torch.equal(pickle.loads(pickle.dumps(function))(X, 1.0), function(X, 1.0))
    assert torch.equal(SurrogateGradient("htaf(alpha=2)")(X, 1.0), function(X, 1.0))
    assert torch.equal(SurrogateGradient("snntorch.atan")(X, 0.0), gradient(surrogate.resolve("snntorch.atan")))
    with pytest.raises(TypeError, match="expected an instance, got the class HTAF"):
        SurrogateGradient(HTAF)


@needs["sinabs"]
def test_htaf_inside_a_sinabs_layer():
    import sinabs.activation
    import sinabs.layers

    layer = sinabs.layers.IAF(spike_fn=sinabs.activation.SingleSpike, surrogate_grad_fn=SurrogateGradient(HTAF()))
    current = torch.tensor([[[0.4, 1.0, 2.5]]], requires_grad=True)
    spikes = layer(current)
    assert spikes.flatten().tolist() == [0, 1, 1]
    expected = gradient(HTAF(), current.detach() - 1)
    torch.testing.assert_close(torch.autograd.grad(spikes.sum(), current)[0], expected)


def shape_of(step):
    """The gradient above the threshold, relative to that at it, by the width at which it has fallen to half."""
    x = torch.logspace(-4, 1, 4001)
    slopes = gradient(step, torch.cat([torch.tensor([1e-6]), x]))
    slopes = slopes[1:] / slopes[0]
    half = x[(slopes <= 0.5).nonzero()[0]] if (slopes <= 0.5).any() else torch.ones(1)
    return gradient(step, half * torch.tensor([0.2, 0.5, 0.8, 1.3])) / gradient(step, torch.tensor([1e-6]))


@pytest.mark.parametrize("library", [pytest.param(name, marks=needs[name]) for name in libraries.LIBRARIES])
def test_counterparts_have_the_same_shape(library):
    module = libraries.LIBRARIES[library]
    assert module.COUNTERPARTS.keys() <= {*module.names()}
    for theirs, ours in module.COUNTERPARTS.items():
        same = torch.allclose(
            shape_of(surrogate.resolve(f"{library}.{theirs}")), shape_of(surrogate.resolve(ours)), atol=2e-3
        )
        assert same == ((library, theirs) != ("snntorch", "triangular")), theirs
