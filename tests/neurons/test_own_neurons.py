"""Neurons of users' own: kernels of any update, or one error that names the operator and the line."""

import inspect
import linecache
import random
import sys

import pytest
import torch
from devices import DEVICES
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from htaf_snn import HTAF, functional
from htaf_snn import nn as hnn
from htaf_snn.kernels.neuron import numba_cpu
from htaf_snn.kernels.neuron.source import generate
from htaf_snn.kernels.neuron.statements import Variant

pytestmark = [pytest.mark.usefixtures("poisoned"), pytest.mark.filterwarnings("ignore::RuntimeWarning")]


def results(layer, x, state, backend, dtype=None, hardness=1.0):
    """Return outputs, last states and gradients of all that has one."""
    device = DEVICES[backend]
    layer = layer.to(device, dtype)
    layer.backend, layer.surrogate.hardness = backend, hardness
    x, *state = (value.detach().to(device, dtype).requires_grad_() for value in (x, *state))
    output, last = layer(x, state)
    outputs = [output, *([last] if isinstance(last, torch.Tensor) else last)]
    loss = sum((y * torch.linspace(-1, 1, y.numel()).to(y).view(y.shape)).sum() for y in outputs)
    leaves = [x, *state, *layer.parameters()]
    gradients = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
    return [value.detach().cpu() for value in (*outputs, *gradients)]


def adaptive():
    @hnn.neuron(states={"v": 0.0, "a": 0.0}, parameters={"beta": 0.9, "rho": 0.97, "threshold": 1.0})
    def adaptive_lif(x, v, a, *, beta, rho, threshold, spike):
        v = beta * v + x
        s = spike(v - threshold - a)
        return s, v - s * threshold, rho * a + s

    return adaptive_lif


def drawn(*shape, seed=0, scale=1.0):
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("hardness", [0.3, 1.0])
@pytest.mark.parametrize("backend", DEVICES)
def test_the_neuron_of_the_docstring(backend, hardness):
    x, state = drawn(9, 3, 5, scale=1.5), [drawn(3, 5, seed=1), drawn(3, 5, seed=2).abs()]
    layer = adaptive()(learn=("rho", "beta", "threshold"), rho=torch.linspace(0.5, 0.99, 5))
    found = results(layer, x, state, backend, hardness=hardness)
    # Eagerly, in no word of the library's but the surrogate.
    step, hard = HTAF(hardness=hardness), HTAF()
    leaves = [value.clone().requires_grad_() for value in (x, *state)]
    learned = [p.detach().cpu().clone().requires_grad_() for p in layer.parameters()]
    named = dict(zip(dict(layer.named_parameters()), learned, strict=True))
    (v, a), spikes = leaves[1:], []
    for current in leaves[0]:
        v = named["beta"] * v + current
        u = v - named["threshold"] - a
        spikes.append(step(u))
        v, a = v - hard(u) * named["threshold"], named["rho"] * a + hard(u)
    outputs = [torch.stack(spikes), v, a]
    loss = sum((y * torch.linspace(-1, 1, y.numel()).view(y.shape)).sum() for y in outputs)
    expected = [*outputs, *torch.autograd.grad(loss, [*leaves, *learned])]
    assert hardness < 1 or (found[0].any() and torch.equal(found[0], expected[0].detach()))
    assert torch.equal(found[1], expected[1].detach()) and torch.equal(found[2], expected[2].detach())
    for value, exact in zip(found, expected, strict=True):
        torch.testing.assert_close(value, exact.detach(), rtol=1e-5, atol=1e-5)


def made(text, states, parameters=(("threshold", 0.5),), **options):
    """Return the layer of an update that is given as text."""
    file = f"<own {hash(text):x}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    namespace = {"torch": torch}
    exec(compile(text, file, "exec"), namespace)
    (update,) = (value for value in namespace.values() if inspect.isfunction(value))
    return hnn.neuron(states=dict.fromkeys(states, 0.0), parameters=dict(parameters), **options)(update)


@pytest.mark.usefixtures("uncompiled")
def test_neurons_of_one_name_are_told_apart():
    lines = ["torch.tanh(v) + x", "torch.sigmoid(v) + x", "0.5 * v + x", "0.25 * v + x", "0.25 * x + v"]
    x, state = drawn(5, 2, 3), [drawn(2, 3, seed=1)]
    text = "def same(x, v, *, threshold, spike):\n    v = {}\n    return spike(v - threshold), v"
    layers = [made(text.format(line), ["v"])() for line in lines]
    for layer in [*layers, *reversed(layers)]:
        found, expected = (results(layer, x, state, backend, torch.float64) for backend in ("numba", "torch"))
        for value, exact in zip(found, expected, strict=True):
            torch.testing.assert_close(value, exact, rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("uncompiled")
def test_neurons_of_one_update_are_told_apart():
    def same(x, v, *, threshold, spike):
        return spike(v + x - threshold), 0.5 * (v + x)

    def with_option(x, v, *, threshold, spike, factor):
        return spike(v + x - threshold), factor * (v + x)

    kinds = [hnn.neuron(states={"v": rest}, parameters={"threshold": 0.5})(same) for rest in (0.0, 1.0)]
    kinds += [hnn.neuron(states={"v": 0.0}, parameters={"threshold": 0.25})(same)]
    kinds += [hnn.neuron(states={"v": 0.0}, parameters={"threshold": 0.5},
                         prepare=lambda threshold: {"threshold": 2 * threshold})(same)]  # fmt: skip
    kinds += [
        hnn.neuron(states={"v": 0.0}, parameters={"threshold": 0.5}, options={"factor": (factor,)})(with_option)
        for factor in (2.0, 3.0)
    ]
    x, layers = drawn(5, 2, 3), [kind(backend="numba") for kind in kinds]
    outputs = [layer(x) for layer in layers]
    for layer, (spikes, v) in zip(layers, outputs, strict=True):
        layer.backend = "torch"
        expected, expected_v = layer(x)
        assert torch.equal(spikes, expected) and torch.equal(v, expected_v)


GAIN = 2.0


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("backend", DEVICES)
def test_a_number_from_outside_is_read_at_each_call(backend, monkeypatch):
    gain = 2.0

    def scaled(x, v, *, threshold, spike):
        v = v + GAIN * gain * x
        return spike(v - threshold), v

    layer, x = (
        hnn.neuron(states={"v": 0.0}, parameters={"threshold": 0.5})(scaled)(backend="numba"),
        torch.ones(1, 1, 1),
    )
    assert layer(x)[1] == 4
    monkeypatch.setattr(sys.modules[__name__], "GAIN", 3.0)
    assert layer(x)[1] == 6
    gain = 5.0
    assert layer(x)[1] == 15


# Random updates


UNARY = ["torch.tanh({})", "torch.sigmoid({})", "torch.relu({})", "torch.abs({})", "-{}", "{}.detach()", "{}.square()"]


UNARY += [
    "torch.clamp({}, -0.7, 0.9)",
    "{}.clamp(min=-0.5)",
    "{}.clamp(max=0.5)",
    "torch.exp({}.clamp(-2.0, 1.0))",
    "{} ** 3",
]
UNARY += ["0.6 * {}", "{} - 0.3", "0.3 - {}", "1 / (1.5 + abs({}))", "torch.sin({})", "torch.cos({})"]
UNARY += ["torch.log(1.5 + abs({}))", "torch.sqrt(1.5 + abs({}))", "torch.rsqrt(1.5 + abs({}))", "torch.sign({})"]
UNARY += [
    "torch.atan({})",
    "torch.erfc({})",
    "torch.floor({})",
    "torch.reciprocal(1.5 + abs({}))",
    "({} > 0.1).to(x.dtype)",
]
BINARY = ["{} + {}", "{} - {}", "{} * {}", "{} / (1.5 + torch.abs({}))", "torch.where({0} > {1}, {0}, 0.5 * {1})"]
BINARY += [
    "torch.where({} < 0.2, {}, 0.1)",
    "torch.where({} <= 0.2, 0.1, {})",
    "torch.maximum({}, {})",
    "torch.minimum({}, {})",
]
BINARY += ["torch.where(({0} > 0.1) & ({1} > 0.1), {1}, {0})", "torch.where(({0} > 0.1) | ~({1} > 0.1), {1}, {0})"]


class Drawn:
    """An update of random operations, as text."""

    def __init__(self, draw):
        count, parameters = draw.randint(1, 3), draw.randint(0, 3)
        self.states = [f"s{i}_" for i in range(count)]
        self.parameters = {f"w{i}_": draw.choice([-0.8, 0.4, 0.9]) for i in range(parameters)}
        values = ["x", *self.states, *self.parameters]
        # An output that is smooth below hardness 1 must not lead to another.
        smooth, lines = set(), []
        for i in range(draw.randint(3, 9)):
            kind, one, other = draw.random(), draw.choice(values), draw.choice(values)
            name = f"t{i}_"
            if kind < 0.2 and not smooth & {one, other}:
                text, is_smooth = f"spike({one} - {other})", True
            elif kind < 0.3:
                text, is_smooth = f"spike.hard({one} - 0.5 * {other})", bool(smooth & {one, other})
            elif kind < 0.6:
                text, is_smooth = draw.choice(UNARY).format(one), one in smooth
            else:
                text, is_smooth = draw.choice(BINARY).format(one, other), bool(smooth & {one, other})
            lines.append(f"{name} = {text}")
            values.append(name)
            smooth |= {name} if is_smooth else set()
        # Bounded, so that nothing overflows over time.
        new = [f"torch.tanh({draw.choice(values)} + 0.5 * {state})" for state in self.states]
        takes = "".join(f", {name}" for name in self.parameters)
        head = f"def drawn(x, {', '.join(self.states)}, *{takes}, spike):"
        end = f"return {draw.choice(values[1:])}, {', '.join(new)}"
        self.text = "\n    ".join([head, *lines, end])

    def compare(self, hardness):
        layer = made(self.text, self.states, self.parameters)(learn=list(self.parameters), surrogate="atan")
        x, state = drawn(4, 1, 3), [drawn(1, 3, seed=i + 1) for i in range(len(self.states))]
        found, expected = (
            results(layer, x, state, backend, torch.float64, hardness) for backend in ("numba", "torch")
        )  # fmt: skip
        for value, exact in zip(found, expected, strict=True):
            torch.testing.assert_close(value, exact, rtol=1e-10, atol=1e-10, msg=self.text)


# What is without a gradient or an effect is no error in torch, nor here.
@settings(max_examples=examples(ci=30, thorough=1000))
@given(st.integers(0, 2**32 - 1), st.sampled_from([1.0, 0.3]))
def compare_random_updates(seed, hardness):
    Drawn(random.Random(seed)).compare(hardness)


@pytest.mark.thorough
@pytest.mark.hypothesis
@pytest.mark.usefixtures("uncompiled")
def test_random_updates_equal_torch():
    compare_random_updates()


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.thorough) for seed in range(2, 8))])
def test_compiled_random_updates_equal_torch(seed):
    Drawn(random.Random(seed)).compare(1.0)


@pytest.mark.parametrize("backend", ["auto", "torch", "numba", "triton"])
def test_parameters_that_do_not_broadcast_are_refused(backend):
    x, device = torch.rand(4, 2, 3), DEVICES.get(backend, "cpu")
    layer = adaptive()(rho=torch.ones(4), backend=backend).to(device)
    with pytest.raises(ValueError, match=r"rho: expected a shape that broadcasts to \(2, 3\), got .*\(4,\)"):
        layer(x.to(device))


# The text of kernels


def test_the_text_of_a_kernel_is_what_is_compiled(monkeypatch):
    seen, compiled = [], numba_cpu._function

    def recorded(source, *others):
        seen.append(source.text)
        return compiled(source, *others)

    monkeypatch.setattr(numba_cpu, "_function", recorded)
    layer = adaptive()(learn=("rho",), surrogate="htaf")
    numba_cpu._functions.cache_clear()
    layer(torch.rand(3, 2, 4))[0].sum().backward()
    names = ("beta", "rho", "threshold")
    sources = generate(layer.definition, {}, Variant(3, ("rho",), names), False, "numba")
    assert seen == [sources.forward.text, sources.backward.text]
    lines = [line.strip() for line in sources.forward.text.splitlines()]
    for line in ("y1 = beta * v + x", "v_new = y1 - output * threshold", "a_new = rho * a + output"):
        assert line in lines, sources.forward.text
    assert sources.saved <= 2 and not sources.keeps_input
    triton = generate(layer.definition, {}, Variant(3, ("rho",), names), False, "triton")
    assert "tl.store(" in triton.forward.text and set(lines) & {
        line.strip() for line in triton.forward.text.splitlines()
    }


def test_what_a_kernel_computes_is_its_text(monkeypatch):
    """As the test above would not see text that is printed and not used."""
    function = numba_cpu._function

    def doubled(source, *others):
        text = source.text.replace("output_row[n] = output", "output_row[n] = output + output")
        return function(type(source)(text, source.arguments), *others)

    monkeypatch.setattr(numba_cpu, "_function", doubled)
    numba_cpu._functions.cache_clear()
    x = torch.rand(5, 2, 4)
    found = functional.leaky(x, beta=0.9, backend="numba")[0]
    numba_cpu._functions.cache_clear()
    assert torch.equal(found, 2 * functional.leaky(x, beta=0.9, backend="torch")[0]) and found.any()
