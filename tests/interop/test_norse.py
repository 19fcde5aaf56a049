"""Norse: every surrogate as `method` in every neuron family; Norse's own untouched."""

import norse.torch as norse
import pytest
import torch
from norse.torch.functional import izhikevich
from norse.torch.functional.lif_adex_refrac import LIFAdExRefracParameters
from norse.torch.functional.lif_mc_refrac import LIFRefracParameters
from norse.torch.module import lif_adex_refrac as adex
from norse.torch.module.encode import ConstantCurrentLIFEncoder, SpikeLatencyLIFEncoder
from norse_names import MODULES, NORSE_METHODS

import htaf_snn
from htaf_snn import interop, surrogate
from htaf_snn.surrogate import Formula, Surrogate, formula, specifications


@pytest.fixture(autouse=True)
def unregistered():
    htaf_snn.unregister()
    yield
    htaf_snn.unregister()


class Reference(torch.autograd.Function):
    """HTAF written out again: the step forward, alpha beta h (1 - h) (1 - tanh^2) backward."""

    @staticmethod
    def forward(ctx, x, alpha, beta):
        ctx.save_for_backward(x)
        ctx.alpha, ctx.beta = alpha, beta
        return torch.where(x > 0, 1.0, 0.0).to(x)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        t = torch.tanh(ctx.alpha * x)
        h = 1 / (1 + torch.exp(-ctx.beta * t))
        return grad * ctx.alpha * ctx.beta * h * (1 - h) * (1 - t * t), None, None


def spiking(method, alpha, shape=()):
    p = izhikevich.IzhikevichParameters(a=0.02, b=0.2, c=-65, d=6, tau_inv=250, method=method, alpha=alpha)
    v = torch.full(shape, -60.0, dtype=torch.float64)
    return izhikevich.IzhikevichSpikingBehavior(p=p, s=izhikevich.IzhikevichState(v=v, u=0.2 * v))


def lif(method, alpha):
    return norse.LIFParameters(method=method, alpha=torch.as_tensor(alpha))


def lif_box(method, alpha):
    return norse.LIFBoxParameters(method=method, alpha=torch.as_tensor(alpha))


def iaf(method, alpha):
    return norse.IAFParameters(method=method, alpha=torch.as_tensor(alpha))


def coba_lif(method, alpha):
    return norse.CobaLIFParameters(method=method, alpha=alpha)


def lsnn(method, alpha):
    return norse.LSNNParameters(method=method, alpha=alpha)


def lif_ex(method, alpha):
    return norse.LIFExParameters(method=method, alpha=alpha)


def lif_adex(method, alpha):
    return norse.LIFAdExParameters(method=method, alpha=alpha)


def lif_refrac(method, alpha):
    return LIFRefracParameters(lif=lif(method, alpha))


def adex_refrac(method, alpha):
    return LIFAdExRefracParameters(lif_adex=lif_adex(method, alpha))


IN_MILLIVOLT = ("Coba", "Izhikevich")  # their potentials are tens of units from the threshold
# name: (module from method and alpha, whether it takes a sequence with time first, scale of its input)
FAMILIES = {
    "LIFCell": (lambda *m: norse.LIFCell(lif(*m)), False, 10.0),
    "LIF": (lambda *m: norse.LIF(lif(*m)), True, 10.0),
    "LIFRecurrentCell": (lambda *m: norse.LIFRecurrentCell(3, 3, lif(*m)), False, 20.0),
    "LIFRecurrent": (lambda *m: norse.LIFRecurrent(3, 3, lif(*m)), True, 20.0),
    "LIFBoxCell": (lambda *m: norse.LIFBoxCell(lif_box(*m)), False, 20.0),
    "LIFExCell": (lambda *m: norse.LIFExCell(lif_ex(*m)), False, 20.0),
    "LIFEx": (lambda *m: norse.LIFEx(lif_ex(*m)), True, 20.0),
    "LIFExRecurrentCell": (lambda *m: norse.LIFExRecurrentCell(3, 3, lif_ex(*m)), False, 20.0),
    "LIFExRecurrent": (lambda *m: norse.LIFExRecurrent(3, 3, lif_ex(*m)), True, 20.0),
    "LIFAdExCell": (lambda *m: norse.LIFAdExCell(lif_adex(*m)), False, 20.0),
    "LIFAdEx": (lambda *m: norse.LIFAdEx(lif_adex(*m)), True, 20.0),
    "LIFAdExRecurrentCell": (lambda *m: norse.LIFAdExRecurrentCell(3, 3, lif_adex(*m)), False, 20.0),
    "LIFAdExRecurrent": (lambda *m: norse.LIFAdExRecurrent(3, 3, lif_adex(*m)), True, 20.0),
    "LIFAdExRefracCell": (lambda *m: adex.LIFAdExRefracCell(p=adex_refrac(*m)), False, 20.0),
    "LIFAdExRefracRecurrentCell": (
        lambda *m: adex.LIFAdExRefracRecurrentCell(3, 3, adex_refrac(*m)), False, 20.0,
    ),
    "LIFAdExRefracRecurrent": (lambda *m: adex.LIFAdExRefracRecurrent(3, 3, adex_refrac(*m)), True, 20.0),
    "LIFRefracCell": (lambda *m: norse.LIFRefracCell(lif_refrac(*m)), False, 20.0),
    "LIFRefracRecurrentCell": (lambda *m: norse.LIFRefracRecurrentCell(3, 3, lif_refrac(*m)), False, 20.0),
    "LIFRefracRecurrent": (lambda *m: norse.LIFRefracRecurrent(3, 3, lif_refrac(*m)), True, 20.0),
    "LSNNCell": (lambda *m: norse.LSNNCell(lsnn(*m)), False, 20.0),
    "LSNN": (lambda *m: norse.LSNN(lsnn(*m)), True, 20.0),
    "LSNNRecurrentCell": (lambda *m: norse.LSNNRecurrentCell(3, 3, lsnn(*m)), False, 20.0),
    "LSNNRecurrent": (lambda *m: norse.LSNNRecurrent(3, 3, lsnn(*m)), True, 20.0),
    "IAFCell": (lambda *m: norse.IAFCell(iaf(*m)), False, 2.0),
    "IAF": (lambda *m: norse.IAF(iaf(*m)), True, 2.0),
    "CobaLIFCell": (lambda *m: norse.CobaLIFCell(3, 3, coba_lif(*m)), False, 20.0),
    "LIFMCRecurrentCell": (lambda *m: norse.LIFMCRecurrentCell(3, 3, lif(*m)), False, 20.0),
    "LIFMCRefracRecurrentCell": (
        lambda *m: norse.LIFMCRefracRecurrentCell(3, 3, lif_refrac(*m)), False, 20.0,
    ),
    "IzhikevichCell": (lambda *m: norse.IzhikevichCell(spiking(*m, (2, 3))), False, 500.0),
    "Izhikevich": (lambda *m: norse.Izhikevich(spiking(*m, (2, 3))), True, 500.0),
    "IzhikevichRecurrentCell": (lambda *m: norse.IzhikevichRecurrentCell(3, 3, spiking(*m)), False, 500.0),
    "IzhikevichRecurrent": (lambda *m: norse.IzhikevichRecurrent(3, 3, spiking(*m)), True, 500.0),
    "ConstantCurrentLIFEncoder": (lambda *m: ConstantCurrentLIFEncoder(4, lif(*m)), None, 20.0),
    "SpikeLatencyLIFEncoder": (lambda *m: SpikeLatencyLIFEncoder(4, lif(*m)), None, 20.0),
}  # fmt: skip


def gradients(name, method, alpha):
    """Spikes on seeded float64 input, and by name the gradients of a weighted sum of them."""
    build, sequence, scale = FAMILIES[name]
    torch.manual_seed(0)
    module = build(method, alpha).double()
    x = (scale * torch.rand((2, 3) if sequence is None else (4, 2, 3), dtype=torch.float64)).requires_grad_()
    if sequence is False:
        spikes, state = [], None
        for step in x:
            s, state = module(step, state)
            spikes.append(s)
        spikes = torch.stack(spikes)
    else:
        spikes = module(x)
        spikes = spikes[0] if isinstance(spikes, tuple) else spikes
    (spikes * torch.linspace(0.5, 1.5, spikes.numel()).view_as(spikes)).sum().backward()
    return spikes.detach(), {"x": x.grad, **{key: p.grad for key, p in module.named_parameters()}}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_equals_itself_with_a_threshold_written_out(name, monkeypatch):
    alpha = 0.01 if name.startswith(IN_MILLIVOLT) else 0.5
    for module in MODULES:
        monkeypatch.setattr(module, "threshold", lambda x, method, alpha: Reference.apply(x, alpha, 5.0))
    expected_spikes, expected = gradients(name, "anything", alpha)
    monkeypatch.undo()
    with htaf_snn.register():
        spikes, grads = gradients(name, "htaf(beta=5)", alpha)
    assert torch.equal(spikes, expected_spikes) and set(spikes.unique().tolist()) == {0.0, 1.0}
    assert grads.keys() == expected.keys()
    assert max(grad.abs().max() for grad in grads.values() if grad is not None) > 1e-4
    torch.testing.assert_close(grads, expected, rtol=1e-9, atol=1e-12)


def step_written_out(v, i, current, box, detach):
    if box:
        v = v + 0.1 * (current - v)
    else:
        i = i + current
        v, i = v + 0.1 * (i - v), i - 0.2 * i
    z = Reference.apply(v - 1, 0.5, 5.0)
    gate = z.detach() if detach else z
    return z, (1 - gate) * v, i


@pytest.mark.parametrize("name", ["LIF", "LIFRecurrent", "LIFBoxCell"])
def test_gradients_equal_dynamics_written_out(name):
    with htaf_snn.register():
        spikes, grads = gradients(name, "htaf(beta=5)", 0.5)
    module = FAMILIES[name][0]
    torch.manual_seed(0)
    weights = {key: p.double() for key, p in module("super", 0.5).named_parameters()}
    weights = {key: weight.detach().requires_grad_() for key, weight in weights.items()}
    x = (FAMILIES[name][2] * torch.rand((4, 2, 3), dtype=torch.float64)).requires_grad_()
    z = v = i = torch.zeros_like(x[0])
    expected = []
    for current in x:
        if weights:
            w = weights["recurrent_weights"]
            no_autapses = w * (1 - torch.eye(3, dtype=w.dtype))
            current = current @ weights["input_weights"].T + z @ no_autapses.T
        z, v, i = step_written_out(v, i, current, name == "LIFBoxCell", detach=bool(weights))
        expected.append(z)
    expected = torch.stack(expected)
    (expected * torch.linspace(0.5, 1.5, expected.numel()).view_as(expected)).sum().backward()
    # Norse's constants are float32 numbers: 0.2 there is 0.2 to 1e-8.
    assert torch.equal(spikes, expected)
    torch.testing.assert_close(grads["x"], x.grad, rtol=1e-6, atol=1e-9)
    for key, weight in weights.items():
        torch.testing.assert_close(grads[key], weight.grad, rtol=1e-6, atol=1e-9)


# -- methods --


def threshold_gradient(method, alpha):
    x = torch.tensor([-2.0, -0.3, 0.0, 0.3, 2.0], dtype=torch.float64, requires_grad=True)
    z = MODULES[4].threshold(x, method, alpha)
    if not z.requires_grad:
        return z, None
    return z.detach(), torch.autograd.grad(z.sum(), x)[0]


@pytest.mark.parametrize("alpha", [0.3, 100.0, torch.tensor(0.3), torch.tensor(100.0)])
@pytest.mark.parametrize("method", NORSE_METHODS)
def test_methods_of_norse_stay_bit_identical(method, alpha):
    spikes, grad = threshold_gradient(method, alpha)
    with htaf_snn.register():
        ours_spikes, ours_grad = threshold_gradient(method, alpha)
    assert torch.equal(ours_spikes, spikes)
    assert ours_grad is grad is None or torch.equal(ours_grad, grad)


@pytest.mark.parametrize("alpha", [0.5, torch.tensor(0.5), torch.full((5,), 0.5)])
@pytest.mark.parametrize("name", surrogate.names())
def test_alpha_sets_the_first_parameter_of_every_surrogate(name, alpha):
    own = surrogate.resolve(name)
    setattr(own, own.formula.parameters[0], 0.5)
    x = torch.tensor([-2.0, -0.3, 0.0, 0.3, 2.0], dtype=torch.float64, requires_grad=True)
    own(x).sum().backward()
    with htaf_snn.register():
        spikes, grad = threshold_gradient(f"{name}()", alpha)
    assert spikes.tolist() == [0, 0, 0, 1, 1]
    torch.testing.assert_close(grad, x.grad, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("method", "same"),
    [
        ("htaf", "htaf(alpha=0.5, beta=4)"),
        ("htaf(beta=8)", "htaf(alpha=0.5, beta=8)"),
        ("htaf(alpha=2)", "htaf(beta=4, alpha=2.0)"),
        ("htaf(normalized=True)", "htaf(alpha=0.5, normalized=True)"),
        ("atan", "atan(alpha=0.5)"),
        ("superspike", "fast_sigmoid(slope=0.5)"),
        ("triangle()", "triangle(alpha=0.5)"),
    ],
)
def test_a_specification_goes_before_alpha(method, same):
    alpha = 1.0 if "(alpha" in method else 0.5
    with htaf_snn.register():
        assert torch.equal(threshold_gradient(method, alpha)[1], threshold_gradient(same, 100.0)[1])


@pytest.mark.parametrize("alpha", [1.0, 100.0, torch.tensor(1.0), torch.tensor(100.0), torch.ones(5)])
def test_an_alpha_that_nobody_chose_may_stand_beside_a_method_that_sets_it(alpha):
    with htaf_snn.register():
        torch.testing.assert_close(
            threshold_gradient("htaf(alpha=0.5)", alpha)[1], threshold_gradient("htaf", 0.5)[1], rtol=0, atol=0
        )


@pytest.mark.parametrize("alpha", [2.0, torch.tensor(2.0), torch.tensor(1.0, requires_grad=True), torch.arange(1.0, 6)])
def test_an_alpha_that_the_method_would_ignore_is_refused(alpha):
    message = r"alpha: expected none beside 'htaf\(alpha=0.5\)', which sets alpha, got .*; leave out one of them"
    with htaf_snn.register(), pytest.raises(ValueError, match=message):
        threshold_gradient("htaf(alpha=0.5)", alpha)
    with pytest.raises(ValueError, match=message):
        interop.from_norse(norse.LIF(lif("htaf(alpha=0.5)", alpha)))


def test_triangle_alone_is_that_of_norse():
    with htaf_snn.register():
        norses, ours = threshold_gradient("triangle", 0.5)[1], threshold_gradient("triangle()", 0.5)[1]
    assert norses.tolist() == pytest.approx([0, 0.35, 0.5, 0.35, 0])
    assert ours.tolist() == pytest.approx([0, 0.425, 0.5, 0.425, 0])


def test_alpha_learns():
    alpha = torch.tensor(0.5, requires_grad=True)
    with htaf_snn.register():
        cell = norse.LIFCell(norse.LIFParameters(method="htaf(beta=5)", alpha=alpha))
        spikes, _ = cell(15 * torch.rand(2, 3))
    spikes.sum().backward()
    assert alpha.grad.abs() > 0


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("hatf", r"method: expected one of .*, got 'hatf'; did you mean htaf\?"),
        ("nonsense", "circ.*heaviside.*htaf.*nonsense"),
        ("adjoint", "circ.*heaviside.*htaf.*adjoint"),
        ("nonsense()", "atan.*htaf"),
        ("htaf(gamma=1)", "gamma"),
        ("htaf(hardness=0.0)", "expected hardness 1, as another would soften the reset"),
        ("htaf(hardness=0.3)", "expected hardness 1, as another would soften the reset"),
        ("htaf(learn=('alpha', 'beta'))", "tensor alpha"),
        ("htaf(", "name\\(key=value"),
    ],
)
def test_bad_methods_are_refused(method, message):
    cell = norse.LIFCell(norse.LIFParameters(method=method if method != "adjoint" else "super"))
    cell.p = cell.p._replace(method=method)
    with htaf_snn.register(), pytest.raises(ValueError, match=message):
        cell(torch.zeros(2, 3))


def test_a_surrogate_registered_after_a_failure_is_found(monkeypatch):
    monkeypatch.setattr(specifications, "_CLASSES", dict(specifications._CLASSES))
    monkeypatch.delitem(formula.FORMULAS, "late_soft_step", raising=False)

    def primitive(x, width):
        return 0.5 + x / (2.0 * (width + abs(x)))

    def derivative(x, width):
        return 0.5 * width / (width + abs(x)) / (width + abs(x))

    with htaf_snn.register():
        with pytest.raises(ValueError, match="late_soft_step"):
            threshold_gradient("late_soft_step", 2.0)

        class LateSoftStep(Surrogate, formula=Formula("late_soft_step", primitive, derivative)):
            width: float = 1.0

        surrogate.register(LateSoftStep)
        assert threshold_gradient("late_soft_step", 2.0)[1][2] == 0.25


def test_a_class_registered_again_replaces_the_one_before(monkeypatch):
    monkeypatch.setattr(specifications, "_CLASSES", dict(specifications._CLASSES))
    monkeypatch.setattr(formula, "FORMULAS", dict(formula.FORMULAS))
    monkeypatch.setattr(specifications, "FORMULAS", formula.FORMULAS)

    def primitive(x, width, factor):
        return 0.5 + x / (2.0 * (width + abs(x)))

    def derivative(x, width, factor):
        return factor * width / (width + abs(x)) / (width + abs(x))

    def define(default):
        class Again(Surrogate, formula=Formula("again", primitive, derivative)):
            width: float = 1.0
            factor: float = default

        surrogate.register(Again)

    with htaf_snn.register():
        for factor in (0.5, 2.0):
            define(factor)
            for method in ("again", "again()", " again (width=1)"):
                assert threshold_gradient(method, 1.0)[1][2] == factor


@pytest.mark.thorough
@pytest.mark.parametrize("alpha", [0.5, torch.tensor(0.5)])
def test_compiles_to_one_graph_when_a_state_is_passed(alpha):
    torch._dynamo.reset()
    cell = norse.LIFCell(norse.LIFParameters(method="htaf(beta=5)", alpha=alpha))
    compiled = torch.compile(cell, fullgraph=True, backend="aot_eager")
    results = []
    with htaf_snn.register():
        for run in (cell, compiled):
            x = torch.linspace(0, 30, 6).view(2, 3).requires_grad_()
            state = norse.LIFFeedForwardState(v=torch.zeros(2, 3), i=torch.zeros(2, 3))
            for _ in range(2):
                spikes, state = run(x, state)
            (spikes.sum() + state.v.sum()).backward()
            results.append((spikes.detach(), state.v.detach(), x.grad))
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected)
