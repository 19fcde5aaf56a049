"""Updates of which no kernel can be made: one error that names the operator and the line."""

import inspect
import re

import pytest
import torch
from devices import DEVICES

from htaf_snn import nn as hnn
from htaf_snn.neurons import NEURONS

pytestmark = [pytest.mark.usefixtures("poisoned"), pytest.mark.filterwarnings("ignore::RuntimeWarning")]
# Updates of which no kernel can be made

TENSOR, LINEAR = torch.tensor([0.5]), torch.nn.Linear(1, 1)


def product(x, v, *, threshold, spike):
    v = v @ torch.ones(3, 3) + x
    return spike(v - threshold), v


def noise(x, v, *, threshold, spike):
    v = v + x + torch.rand(3)
    return spike(v - threshold), v


def noise_like(x, v, *, threshold, spike):
    v = v + x + torch.rand_like(x)
    return spike(v - threshold), v


def number(x, v, *, threshold, spike):
    v = v + x * v.mean().item()
    return spike(v - threshold), v


def item(x, v, *, threshold, spike):
    v = v + x * threshold.item()
    return spike(v - threshold), v


def branch(x, v, *, threshold, spike):
    if (v > 0).any():
        v = v + x
    return spike(v - threshold), v


def bare_branch(x, v, *, threshold, spike):
    if threshold > 0:
        v = v + x
    return spike(v - threshold), v


def bessel(x, v, *, threshold, spike):
    v = torch.special.bessel_j0(v) + x
    return spike(v - threshold), v


def captured(x, v, *, threshold, spike):
    v = v + TENSOR * x
    return spike(v - threshold), v


def module(x, v, *, threshold, spike):
    v = v + LINEAR(x[..., None])[..., 0]
    return spike(v - threshold), v


def reshaped(x, v, *, threshold, spike):
    v = (v + x)[None]
    return spike(v - threshold), v


def summed(x, v, *, threshold, spike):
    v = v + x.sum()
    return spike(v - threshold), v


def true_or_false(x, v, *, threshold, spike):
    v = v + x
    return v > threshold, v


def whole(x, v, *, threshold, spike):
    v = v + x
    return spike(v - threshold), v.int()


def of_another_dtype(x, v, *, threshold, spike):
    v = v + x
    return spike(v - threshold), v.half()


def without_a_state(x, v, *, threshold, spike):
    return (spike(v + x - threshold),)


def one_state_more(x, v, *, threshold, spike):
    return spike(v + x - threshold), v, x


def alone(x, v, *, threshold, spike):
    return spike(v + x - threshold)


def a_number(x, v, *, threshold, spike):
    return spike(v + x - threshold), 0.0


def gradient_unknown(x, v, *, threshold, spike):
    v = v.abs() ** 0.3 + x
    return spike(v - threshold), v


def cast(x, v, *, threshold, spike):
    v = v + x.int()
    return spike(v - threshold), v


def reset_before_the_output(x, v, *, threshold, spike):
    v = v + x - spike(v - threshold)
    return spike(v - threshold), v


BAD = {
    product: ["operator (mm|ones)", r"v @ torch\.ones\(3, 3\)"],
    noise: ["operator rand", r"v \+ x \+ torch\.rand\(3\)"],
    noise_like: ["operator rand_like", r"torch\.rand_like\(x\)"],
    number: ["operator mean", r"v\.mean\(\)\.item\(\)"],
    item: ["number that depends on a tensor's values", r"threshold\.item\(\)"],
    branch: ["operator any", r"if \(v > 0\)\.any\(\)"],
    bare_branch: ["control flow .*; write torch.where", "if threshold > 0:"],
    bessel: ["operator special_bessel_j0", r"torch\.special\.bessel_j0\(v\)"],
    captured: ["a tensor from outside of the update; make it a parameter", r"v \+ TENSOR \* x"],
    module: ["operator unsqueeze", r"LINEAR\(x\[\.\.\., None\]\)"],
    reshaped: ["operator unsqueeze", r"\(v \+ x\)\[None\]"],
    summed: ["operator sum", r"v \+ x\.sum\(\)"],
    true_or_false: ["expected output in the dtype of the input, got torch.bool"],
    whole: ["a cast to torch.int32", r"v\.int\(\)"],
    of_another_dtype: ["a cast to torch.float16", r"v\.half\(\)"],
    without_a_state: ["returns output, v, got 1 values"],
    one_state_more: ["returns output, v, got 3 values"],
    alone: ["returns output, v, got"],
    a_number: ["expected v in the dtype of the input, got float"],
    gradient_unknown: ["pow with the exponent 0.3", r"v\.abs\(\) \*\* 0\.3"],
    cast: ["a cast to torch.int32", r"v \+ x\.int\(\)"],
    reset_before_the_output: ["expected spike.hard for a reset that comes before the output"],
}


@pytest.mark.parametrize("update", BAD, ids=lambda update: update.__name__)
@pytest.mark.parametrize("backend", ["auto", "numba", "triton"])
def test_what_no_kernel_computes_is_one_error_that_names_the_line(update, backend):
    device = DEVICES.get(backend, "cpu")
    layer = hnn.neuron(states={"v": 0.0}, parameters={"threshold": 0.5})(update)(backend=backend).to(device)
    with pytest.raises(ValueError) as caught:
        layer(torch.rand(4, 2, 3, device=device))
    message = str(caught.value)
    assert message.startswith(update.__name__) and caught.value.__cause__ is None
    expected, *line = BAD[update]
    assert re.search(expected, message), message
    if line:
        number = next(i for i, text in enumerate(inspect.getsourcelines(update)[0]) if re.search(line[-1], text))
        assert f"{__file__}:{number + inspect.getsourcelines(update)[1]}: " in message and re.search(line[-1], message)


@pytest.mark.parametrize("update", [product, noise_like, bessel, captured, module, gradient_unknown, cast])
def test_torch_computes_what_no_kernel_does(update):
    layer = hnn.neuron(states={"v": 0.0}, parameters={"threshold": 0.5})(update)(backend="torch")
    assert layer(torch.rand(4, 3, 3))[0].shape == (4, 3, 3)


@pytest.mark.parametrize("backend", DEVICES)
def test_backends_give_what_depends_on_no_neuron_the_shape_of_all(backend):
    def clock(x, v, *, threshold, spike):
        return 2 * threshold, threshold + 1

    layer = hnn.neuron(states={"v": 0.0}, parameters={"threshold": 0.5})(clock)(backend=backend).to(DEVICES[backend])
    output, v = layer(torch.rand(4, 2, 3, device=DEVICES[backend]))
    assert torch.equal(output.cpu(), torch.ones(4, 2, 3)) and torch.equal(v.cpu(), torch.full((2, 3), 1.5))


def plain(x, v, *, spike, **parameters):
    return spike(v + x - 1), v + x


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"states": {"v": 0.0}, "parameters": {"v": 1.0}}, "v"),
        ({"states": {"v": 0.0}, "parameters": {"x": 1.0}}, "x"),
        ({"states": {"v": 0.0}, "parameters": {"step": 1.0}}, "step"),
        ({"states": {"v": 0.0}, "parameters": {"grad_v": 1.0}}, "grad_v"),
        ({"states": {"v": 0.0}, "parameters": {"v_new": 1.0}}, "v_new"),
        ({"states": {"v": 0.0}, "parameters": {"y1": 1.0}}, "y1"),
        ({"states": {"v": 0.0}, "parameters": {"exp": 1.0}}, "exp"),
        ({"states": {"v": 0.0}, "parameters": {"lambda": 1.0}}, "lambda"),
        ({"states": {"v": 0.0}, "parameters": {"two words": 1.0}}, "two words"),
        ({"states": {"v": 0.0}, "parameters": {"surrogate": 1.0}}, "surrogate"),
        ({"states": {"v": 0.0}, "parameters": {"training": 1.0}}, "training"),
        ({"states": {"v": 0.0}, "parameters": {"definition": 1.0}}, "definition"),
        ({"states": {"v": 0.0}, "parameters": {"forward": 1.0}}, "forward"),
        ({"states": {"v": 0.0}, "options": {"options": (1, 2)}}, "options"),
        ({"states": {"v": 0.0}, "options": {"backend": (1, 2)}}, "backend"),
        ({"states": {"v": 0.0}, "parameters": {"gain": 1.0}, "options": {"gain": (1, 2)}}, "gain"),
    ],
)
def test_names_that_collide_are_refused_at_once(given, name):
    before = set(NEURONS)
    with pytest.raises(ValueError, match=rf"plain\w*: expected another name than '{name}'"):
        hnn.neuron(**given)(plain)
    assert set(NEURONS) == before
