"""Every way to make a fused neuron in every way to run it: the values of the reference, or a refusal by name."""

import copy
import pickle

import norse.torch as norse
import pytest
import snntorch as snn
import torch
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

import htaf_snn
from htaf_snn import HTAF, functional, interop, models, surrogate
from htaf_snn import nn as hnn
from htaf_snn.surrogate import Formula


def primitive(x, width):
    return 0.5 + x / (2.0 * (width + abs(x)))


def derivative(x, width):
    torch._dynamo.graph_break()  # what follows it is a graph of its own, whose inputs the joined spikes are
    return 0.5 * width / (width + abs(x)) / (width + abs(x))


class Breaking(surrogate.Surrogate, formula=Formula("breaking", primitive, derivative)):
    width: float = 1.0


class Learned(torch.nn.Module):
    """A callable with a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.slope = torch.nn.Parameter(torch.tensor(2.0))

    def forward(self, x):
        soft = torch.sigmoid(self.slope * x)
        return (x > 0).to(x.dtype) + soft - soft.detach()


FOREIGN = {
    "snnTorch's atan": lambda: hnn.Leaky(0.9, surrogate=snn.surrogate.atan(), learn_beta=True),
    "learned callable": lambda: hnn.Leaky(0.9, surrogate=Learned()),
    "from snnTorch": lambda: interop.from_snntorch(snn.Leaky(0.9, learn_beta=True)),
    "LIF, snnTorch's atan": lambda: hnn.LIF(v_th=0.3, surrogate=snn.surrogate.atan(), learn=["v_th"]),
    "from Norse": lambda: interop.from_norse(norse.LIF(norse.LIFParameters(v_th=torch.tensor(0.3)))),
}
NEURONS = {
    "HTAF": lambda: hnn.Leaky(0.9),
    "ATan, learned": lambda: hnn.Leaky(0.9, surrogate="atan", learn_beta=True, learn_threshold=True),
    "smooth": lambda: hnn.Leaky(0.9, surrogate=HTAF(hardness=0.0)),
    "learnable HTAF": lambda: hnn.Leaky(0.9, surrogate=HTAF(learn=("alpha",))),
    "alpha per neuron": lambda: hnn.Leaky(0.9, surrogate=HTAF(alpha=torch.linspace(0.5, 2, 5))),
    "own formula": lambda: hnn.Leaky(0.9, surrogate=Breaking()),
    "graded": lambda: hnn.Leaky(0.9, graded_spikes_factor=2.0, learn_graded_spikes_factor=True),
    "LIF": lambda: hnn.LIF(learn=["tau_mem_inv"], v_th=0.3),
    **FOREIGN,
}


def spikes(neuron, x):
    return neuron(x)[0]


def compiled(**options):
    def run(neuron, x):
        torch._dynamo.reset()
        return torch.compile(neuron, backend="aot_eager", **options)(x)[0]

    return run


def exported(neuron, x):
    batch = torch.export.Dim.AUTO
    return torch.export.export(neuron, (x.detach(),), dynamic_shapes={"x": (batch, batch, None)}).module()(x)[0]


class Alone(torch.nn.Module):
    """A neuron with one input, spikes alone out."""

    def __init__(self, neuron):
        super().__init__()
        self.neuron = neuron

    def forward(self, x):
        return self.neuron(x)[0], x.sum()


WAYS = {
    "eager": spikes,
    "compile": compiled(),
    "compile, dynamic": compiled(dynamic=True),
    "compile, one graph": compiled(fullgraph=True),
    "compile, one dynamic graph": compiled(fullgraph=True, dynamic=True),
    "export": lambda neuron, x: exported(Alone(neuron), x),
    "functional_call": lambda neuron, x: torch.func.functional_call(neuron, dict(neuron.named_parameters()), (x,))[0],
    "vmap": lambda neuron, x: torch.vmap(lambda b: spikes(neuron, b[:, None]), in_dims=1, out_dims=1)(x)[:, :, 0],
    "checkpoint": lambda neuron, x: checkpoint(lambda x: spikes(neuron, x), x, use_reentrant=False),
    "reentrant checkpoint": lambda neuron, x: checkpoint(lambda x: spikes(neuron, x), x, use_reentrant=True),
}


def weighted(y):
    return (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)).sum()


def with_gradients(neuron, x, run):
    x = x.clone().requires_grad_()
    y = run(neuron, x)
    weighted(y).backward()
    return {"spikes": y.detach(), "x": x.grad, **{name: p.grad for name, p in neuron.named_parameters()}}


@pytest.fixture(scope="module")
def x():
    return 1.5 * torch.randn(6, 3, 5, generator=torch.Generator().manual_seed(0))


def reference(make, x):
    neuron = make()
    neuron.backend = "torch"
    return with_gradients(neuron, x, spikes)


REFUSED = {
    "compile, one graph": (FOREIGN, r"surrogate: expected one of htaf_snn.*or backend='torch'"),
    "compile, one dynamic graph": (FOREIGN, r"surrogate: expected one of htaf_snn.*or backend='torch'"),
    "export": (FOREIGN, "surrogate: expected one of htaf_snn.*to export a trainable network"),
    # Functions without setup_context have no batching rule, which is torch's to say.
    "vmap": ([name for name in FOREIGN if name != "learned callable"], "vmap|functorch"),
}


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NEURONS)
def test_every_neuron_in_every_way(name, way, x):
    if way in REFUSED and name in REFUSED[way][0]:
        with pytest.raises((RuntimeError, ValueError), match=REFUSED[way][1]):
            with_gradients(NEURONS[name](), x, WAYS[way])
        return
    if name == "own formula" and "one" in way:
        pytest.skip("its formula breaks the graph on purpose")
    expected = reference(NEURONS[name], x)
    found = with_gradients(NEURONS[name](), x, WAYS[way])
    assert expected["spikes"].any() and expected["x"].any()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in NEURONS if name not in FOREIGN])
def test_derivatives_of_torch_func(name, x):
    neuron, expected = NEURONS[name](), reference(NEURONS[name], x)["x"]
    torch.testing.assert_close(
        torch.func.grad(lambda x: weighted(spikes(neuron, x)))(x), expected, rtol=1e-4, atol=1e-5
    )
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    tangent = torch.func.jvp(lambda x: weighted(spikes(neuron, x)), (x,), (direction,))[1]
    torch.testing.assert_close(tangent, (expected * direction).sum(), rtol=1e-4, atol=1e-4)
    with forward_ad.dual_level():
        dual = spikes(neuron, forward_ad.make_dual(x, direction))
        tangent = weighted(forward_ad.unpack_dual(dual).tangent)
    torch.testing.assert_close(tangent, (expected * direction).sum(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NEURONS)
def test_second_derivatives_are_the_reference_s_or_refused(name, x):
    x = x.clone().requires_grad_()

    def second(neuron):
        (grad,) = torch.autograd.grad(weighted(spikes(neuron, 2 * x)), x, create_graph=True)
        return torch.autograd.grad(grad.square().sum(), x)[0]

    with pytest.raises(RuntimeError, match=r"create_graph: expected backend='torch'"):
        second(NEURONS[name]())
    neuron = NEURONS[name]()
    neuron.backend = "torch"
    exact = second(neuron)
    assert exact.any() and exact.isfinite().all()


def test_hessians_of_the_smooth_step_are_exact():
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)
    hessian = torch.func.hessian(lambda x: functional.htaf(x).sum())(x)
    step = 1e-6
    expected = (functional.htaf_derivative(x + step) - functional.htaf_derivative(x - step)) / (2 * step)
    torch.testing.assert_close(hessian.diagonal(), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("size", [7, 2**15 + 1])
@pytest.mark.parametrize("run", [functional.spike, functional.smooth])
def test_forward_mode_of_the_elementwise_step(run, size):
    x, direction = torch.randn(2, size, dtype=torch.float64)
    alpha, change = torch.tensor([0.7, 0.3], dtype=torch.float64)
    _, tangent = torch.func.jvp(lambda x, a: run(x, "htaf", alpha=a), (x, alpha), (direction, change))
    slopes = torch.autograd.functional.jvp(lambda a: functional.htaf(x, alpha=a), alpha, change, strict=True)[1]
    torch.testing.assert_close(tangent, direction * functional.htaf_derivative(x, alpha) + slopes)


@pytest.mark.parametrize(
    "make", [HTAF, lambda: hnn.Leaky(0.9), pytest.param(hnn.LIF, marks=pytest.mark.thorough), hnn.BinaryActivation]
)
@pytest.mark.parametrize("dynamic", [None, pytest.param(True, marks=pytest.mark.thorough)])
def test_annealing_under_compilation(make, dynamic, x):
    torch._dynamo.reset()
    module = make()
    step = getattr(module, "surrogate", module)
    run = torch.compile(module, fullgraph=True, dynamic=dynamic, backend="aot_eager")

    def gradient(run):
        leaf = x.clone().requires_grad_()
        y = run(leaf)
        weighted(y if isinstance(y, torch.Tensor) else y[0]).backward()
        return leaf.grad

    for number in range(12):  # more than the recompilations that Dynamo allows
        step.alpha = 1.0 + number / 4
        torch.testing.assert_close(gradient(run), gradient(module))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf"), 0.0, -0.0, 1e38])
def test_an_exported_spike_keeps_value_and_gradient(bad):
    x = torch.tensor([-1.0, 0.3, bad])
    run = torch.export.export(HTAF(learn=("alpha", "beta")), (x,)).module()
    module = HTAF(learn=("alpha", "beta"))
    for function in (run, module):
        leaf = x.clone().requires_grad_()
        function(leaf).sum().backward()
        found = {"y": function(leaf).detach(), "x": leaf.grad, **{n: p.grad for n, p in function.named_parameters()}}
        if function is run:
            exported = found
    torch.testing.assert_close(exported["y"], found["y"], rtol=0, atol=0)
    torch.testing.assert_close(exported["x"], found["x"], equal_nan=True)
    if torch.tensor(bad).isfinite():
        torch.testing.assert_close(exported, found)


def test_nothing_that_needs_no_gradient_gets_one(x):
    for neuron in (hnn.Leaky(0.9, surrogate=snn.surrogate.atan()), hnn.LIF(surrogate=lambda v: HTAF()(v))):
        assert not spikes(neuron, x).requires_grad
    slope = torch.tensor(2.0, requires_grad=True)
    learned = hnn.Leaky(0.9, surrogate=lambda v: (v > 0) + torch.sigmoid(slope.exp() * v) * 1.0)
    spikes(learned, x).sum().backward()
    assert slope.grad != 0


@pytest.mark.parametrize("place", [torch.func.grad, torch.vmap])
def test_kernels_asked_for_by_name_are_refused_inside_transforms(place, x):
    neuron = hnn.Leaky(0.9, backend="numba")
    with pytest.raises(ValueError, match=r"backend: expected auto or torch inside torch\.func.*got 'numba'"):
        place(lambda x: spikes(neuron, x[:, None] if x.ndim == 2 else x).sum())(x)
    with pytest.raises(ValueError, match=r"checkpoint_every: expected None inside torch\.func"):
        torch.func.grad(lambda x: spikes(hnn.Leaky(0.9, checkpoint_every=2), x).sum())(x)


@pytest.mark.parametrize("factor", [2.5, torch.linspace(1, 2, 5)])
def test_a_factor_loaded_or_set_later_counts(factor, x):
    expected = spikes(hnn.Leaky(0.9, graded_spikes_factor=factor), x)
    loaded = hnn.Leaky(0.9, graded_spikes_factor=torch.ones_like(torch.as_tensor(factor)))
    loaded.load_state_dict(hnn.Leaky(0.9, graded_spikes_factor=factor).state_dict())
    plain = hnn.Leaky(0.9)
    plain.load_state_dict(loaded.state_dict())
    copied = copy.deepcopy(hnn.Leaky(0.9, graded_spikes_factor=torch.ones(5)))
    spikes(copied, x)
    copied.graded_spikes_factor.data.copy_(torch.as_tensor(factor))
    filled = hnn.Leaky(0.9, graded_spikes_factor=torch.ones(5))
    filled.graded_spikes_factor.copy_(torch.as_tensor(factor))
    replaced = copy.deepcopy(filled)
    replaced.graded_spikes_factor = torch.as_tensor(factor)
    for neuron in (loaded, plain, copied, filled, replaced):
        assert torch.equal(spikes(neuron, x), expected) and expected.max() > 1


def test_neurons_with_norse_methods_are_pickled_while_registered(x):
    with htaf_snn.register():
        neuron = interop.from_norse(norse.LIF(norse.LIFParameters(method="super", v_th=torch.tensor(0.3))))
        data = pickle.dumps(neuron)
    assert torch.equal(spikes(pickle.loads(data), x), spikes(neuron, x))


@pytest.mark.parametrize(
    "make",
    [
        lambda: models.ICBM(models.ImageEncoder(1, 4), 8, 3),
        pytest.param(lambda: models.BinaryResNet(8, 1, 3, width=4, surrogate="atan"), marks=pytest.mark.thorough),
    ],
)
def test_networks_compile_with_dynamic_shapes(make):
    torch._dynamo.reset()
    net = make()
    run = torch.compile(net, dynamic=True, backend="aot_eager")
    for batch in (4, 3):
        x = torch.rand(batch, 1, 12, 12)
        torch.testing.assert_close(run(x), net(x))
        run(x).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize(
    "transform",
    [
        torch.func.jacrev,
        pytest.param(torch.func.jacfwd, marks=pytest.mark.thorough),
        pytest.param(torch.func.hessian, marks=pytest.mark.thorough),
    ],
)
@pytest.mark.parametrize(
    "make", [HTAF, lambda: HTAF(hardness=0.0), lambda: torch.nn.Sequential(torch.nn.Linear(6, 6), HTAF())]
)
def test_transforms_are_compiled_right(make, transform):
    torch._dynamo.reset()
    torch.manual_seed(0)
    net, x = make(), torch.randn(6)
    function = transform(lambda x: net(x).square().sum())
    expected = function(x)
    torch.testing.assert_close(torch.compile(function, backend="aot_eager")(x), expected, rtol=1e-4, atol=1e-5)
    assert expected.any()
