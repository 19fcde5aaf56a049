"""What kernels are kept by: everything that an update depends on, in this process and on disk."""

import json
import os
import subprocess
import sys
import types
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from htaf_snn import functional
from htaf_snn import nn as hnn
from htaf_snn.kernels.fingerprint import fingerprint
from htaf_snn.kernels.neuron import cache
from htaf_snn.neurons import NEURONS

X = torch.linspace(-1, 2, 24).view(6, 2, 2)
settings = types.ModuleType("settings")


def equal(layer):
    """Whether the kernels compute what plain torch does, or refuse to."""
    layer.backend = "torch"
    expected = layer(X)
    layer.backend = "numba"
    found = layer(X)
    return torch.equal(found[0], expected[0]) and torch.allclose(found[1], expected[1])


def own(update):
    return hnn.neuron(states={"v": 0.0}, parameters={"threshold": 1.0})(update)()


def decayed(v):
    return 0.9 * v


def calls_a_helper(x, v, *, threshold, spike):
    v = decayed(v) + x
    return spike(v - threshold), v


def test_a_helper_that_is_defined_again_is_compiled_again(monkeypatch):
    layer = own(calls_a_helper)
    assert equal(layer)
    monkeypatch.setitem(globals(), "decayed", lambda v: 0.1 * v)
    assert equal(layer)


def test_functions_without_a_module_are_told_apart():
    """Such as those that exec makes in a namespace without a name, which Python takes for builtins."""
    found = []
    for number in ("0.9", "0.1"):
        names = {}
        exec(f"def decayed(v):\n    return {number} * v", names)
        outer = {"decayed": names["decayed"]}
        exec("def outer(v):\n    return decayed(v)", outer)
        found.append(fingerprint(outer["outer"]))
    assert found[0] != found[1]


def with_rate(holder):
    def update(x, v, *, threshold, spike):
        v = holder.rate * v + x
        return spike(v - threshold), v

    return update


def test_dotted_values_from_outside_are_told_apart():
    first, second = (types.SimpleNamespace(rate=rate) for rate in (0.9, 0.1))
    one, other = own(with_rate(first)), own(with_rate(second))
    assert equal(one) and equal(other) and equal(one)
    first.rate = 0.5
    assert equal(one)
    settings.rate = 0.3
    third = own(with_rate(settings))
    assert equal(third)
    settings.rate = 0.7
    assert equal(third)


def test_objects_from_outside_are_refused():
    weight = torch.ones(2)

    def update(x, v, *, threshold, spike):
        v = weight * v + x
        return spike(v - threshold), v

    with pytest.raises(ValueError, match=r"update: expected .* got a tensor from outside"):
        own(update)(X)

    class Holder:
        def __call__(self, v):
            return 0.5 * v

    held = Holder()

    def calls(x, v, *, threshold, spike):
        v = held(v) + x
        return spike(v - threshold), v

    with pytest.raises(ValueError, match=r"calls: expected .* got held from outside"):
        own(calls)(X)

    class Method:
        def update(self, x, v, *, threshold, spike):
            return spike(v + x - threshold), v

    with pytest.raises(TypeError, match="update: expected a function with a name"):
        own(Method().update)


def test_torchs_own_functions_are_no_values_from_outside():
    from torch import tanh

    def update(x, v, *, threshold, spike):
        v = tanh(v) + x
        return spike(v - threshold), v

    assert equal(own(update))


@pytest.mark.parametrize(
    "update",
    [
        lambda x, v: (v > 0.2) + (x > 0.2) + 0.0 * x,
        lambda x, v: x.to(torch.bfloat16).to(x.dtype),
        lambda x, v: x / x.shape[-1],
        lambda x, v: x / x.numel(),
        lambda x, v: x + torch.finfo(x.dtype).eps * 1e6,
    ],
    ids=["sum of conditions", "rounded", "shape", "numel", "dtype"],
)
def test_what_would_be_translated_wrongly_is_refused(update):
    def named(x, v, *, threshold, spike):
        v = update(x, v)
        return spike(v - threshold), v

    with pytest.raises(ValueError, match="backend='torch' computes it"):
        own(named)(X)


def test_crossed_bounds_clamp_as_in_torch():
    def update(x, v, *, threshold, spike):
        v = torch.clamp(x, 1.0, 0.5)
        return spike(v - threshold), v

    assert equal(own(update))


@pytest.mark.parametrize("name", ["step", "size", "n", "begin", "output", "y1", "v_new", "sum_w", "BLOCK"])
def test_names_of_prepared_parameters_are_checked(name):
    def update(x, v, *, spike, **given):
        return spike(x - given[name]), v

    with pytest.raises(ValueError, match=f"expected another name than '{name}'"):
        hnn.neuron(states={"v": 0.0}, parameters={"tau": 2.0}, prepare=lambda tau: {name: 1 / tau})(update)


def test_a_gradient_flows_to_what_a_neuron_rests_at():
    @hnn.neuron(states={"v": "rest"}, parameters={"rest": 0.3})
    def rests(x, v, *, rest, spike):
        v = 0.5 * v + x
        return spike(v - 1), v

    for backend in ("torch", "numba"):
        layer = rests(learn=("rest",), backend=backend)
        layer(X)[1].sum().backward()
        assert layer.rest.grad == pytest.approx(4 * 0.5**6)


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ({"states": {"w": 0.0, "v": 0.0}}, ["the input and then the states", "w, v", "x, v, w"]),
        ({"states": {}}, ["at least one"]),
        ({"states": {"v": "low", "w": 0.0}}, ["states", "v", "'low'"]),
        ({"parameters": {"bta": 0.9}}, ["keywords", "bta", "beta"]),
        ({"options": {"mode": ()}}, ["options", "mode", "none"]),
    ],
)
def test_what_is_declared_is_compared_with_the_update(declared, words):
    def update(x, v, w, *, beta, spike):
        return spike(v), v, w

    with pytest.raises(ValueError) as caught:
        hnn.neuron(**({"states": {"v": 0.0, "w": 0.0}, "parameters": {"beta": 0.9}} | declared))(update)
    assert all(word in str(caught.value) for word in words), caught.value


def test_several_threads_may_be_first(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "user_cache_path", lambda _: tmp_path)
    made = [own(with_rate(types.SimpleNamespace(rate=0.1 * k))) for k in range(8)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda layer: layer.sources("numba"), made))


RUN = """
import json, torch
from htaf_snn import functional
v = functional.li(torch.ones(3, 1, 1), dt=0.001)[1].v
print(json.dumps(v.item()))
"""


def test_kernels_on_disk_follow_the_neurons_files(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "user_cache_path", lambda _: tmp_path)
    before = cache.cached_file("leaky")
    cache._version.cache_clear()
    other = tmp_path / "neurons"
    other.mkdir()
    (other / "li_box.py").write_text("changed")
    monkeypatch.setattr(cache.neurons, "__file__", str(other / "__init__.py"))
    assert cache.cached_file("leaky") != before
    cache._version.cache_clear()


@pytest.mark.thorough
def test_a_file_that_cannot_be_read_is_no_kernel(tmp_path):
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    outputs = []
    for _ in range(2):
        run = subprocess.run([sys.executable, "-c", RUN], capture_output=True, text=True, env=environment)
        outputs.append(json.loads(run.stdout))
        files = list(tmp_path.rglob("*.json"))
        assert files, run.stderr
        for file in files:
            file.write_text("{")
    assert outputs[0] == outputs[1]


def test_recurrent_weights_that_are_more_than_a_layer_are_refused():
    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    hooked = nn.Linear(2, 2)
    hooked.register_forward_hook(lambda *_: None)
    around = nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular")
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))
    for weights, x in ((Doubled(2, 2), X), (hooked, X), (around, torch.zeros(3, 1, 2, 4, 4))):
        with pytest.raises(ValueError, match="recurrent: expected a plain Linear or Conv2d"):
            functional.run_recurrent(NEURONS["rleaky"], x, weights, beta=0.9)
    # A parametrised weight is computed when it is read.
    spikes, _ = functional.run_recurrent(NEURONS["rleaky"], X, normed, beta=0.9)
    assert spikes.requires_grad


@pytest.mark.parametrize("name", ["alpha", "lapicque", "coba_lif"])
def test_any_neuron_can_be_recurrent(name):
    given = {"alpha": {"alpha": 0.9, "beta": 0.8}, "lapicque": {"C": 5.0}, "coba_lif": {}}[name]
    weight = torch.tensor([[0.3, -0.2], [0.1, 0.4]])
    found, expected = (
        functional.run_recurrent(NEURONS[name], 9 * X, (weight, None), backend=backend, **given)
        for backend in ("numba", "torch")
    )
    assert torch.equal(found[0], expected[0]) and torch.allclose(found[1].v, expected[1].v)


def test_neurons_that_do_not_spike_refuse_what_needs_spikes():
    with pytest.raises(ValueError, match="nothing to send back"):
        functional.run_recurrent(NEURONS["li"], X, torch.ones(2))
    for run in (functional.li, lambda x, **given: functional.run(NEURONS["li"], x, **given)):
        with pytest.raises(TypeError, match="li: expected no surrogate"):
            run(X, surrogate="atan")


def test_a_weight_for_each_sample():
    weight = torch.rand(2, 2, requires_grad=True)
    grads = []
    for backend in ("numba", "torch"):
        spikes, _ = functional.run_recurrent(NEURONS["rleaky"], X, weight, beta=0.9, backend=backend)
        grads.append(torch.autograd.grad(spikes.sum(), weight)[0])
    torch.testing.assert_close(*grads)


def test_a_parameter_that_is_not_to_be_learned_is_refused():
    with pytest.raises(ValueError, match="v_th: expected a tensor without gradient"):
        hnn.LIF(v_th=nn.Parameter(torch.ones(2)))
    given = nn.Parameter(torch.ones(2, 2))
    hnn.LIFRecurrent(2, 2, recurrent_weights=given)
    assert given.eq(1).all()
