"""Surrogates as modules: parameters, copies, names, registration, bad input."""

import copy
import io
import pickle
import subprocess
import sys
import textwrap

import pytest
import torch
from closed_forms import HARDNESSES

from htaf_snn import HTAF, functional, surrogate
from htaf_snn.functional import smooth, spike


def test_learnable_is_positive_saved_and_per_channel():
    step = HTAF(alpha=torch.full((3, 1, 1), 0.5), beta=4.0, learn=("alpha", "beta"))
    assert sorted(step.state_dict()) == ["_extra_state", "log_alpha", "log_beta"]
    optimizer = torch.optim.SGD(step.parameters(), lr=100.0)
    step(torch.randn(2, 3, 4, 4)).sum().backward()
    optimizer.step()
    assert all((step.values()[name] > 0).all() for name in step.learn)
    other = HTAF(alpha=torch.ones(3, 1, 1), learn=("alpha", "beta"))
    other.load_state_dict(step.state_dict())
    assert torch.equal(other.values()["alpha"], step.values()["alpha"])


def test_fixed_tensor_parameters_follow_the_module():
    step = HTAF(alpha=torch.tensor([[0.5], [2.0]]))
    assert sorted(step.state_dict()) == ["_extra_state", "alpha"]
    x = torch.randn(4, 2, 3, requires_grad=True)
    step(x).sum().backward()
    expected = torch.stack([functional.htaf_derivative(x[:, i], a) for i, a in enumerate((0.5, 2.0))], dim=1)
    torch.testing.assert_close(x.grad, expected)


@pytest.mark.parametrize("hardness", HARDNESSES)
@pytest.mark.parametrize("name", surrogate.names())
def test_module_survives_copies_eval_and_compilation(name, hardness):
    step = surrogate.resolve(name)
    step.hardness = hardness
    x = torch.randn(17, requires_grad=True)
    step(x).sum().backward()
    expected, buffer = x.grad, io.BytesIO()
    torch.save(step, buffer)
    buffer.seek(0)
    torch._dynamo.reset()
    variants = {
        "pickle": pickle.loads(pickle.dumps(step)),
        "deepcopy": copy.deepcopy(step),
        "torch.save": torch.load(buffer, weights_only=False),
        "eval": copy.deepcopy(step).eval(),
        "compile": torch.compile(step, fullgraph=True, backend="aot_eager"),
    }
    for label, variant in variants.items():
        z = x.detach().clone().requires_grad_()
        y = variant(z)
        y.sum().backward()
        assert torch.equal(y, step(z)), label
        torch.testing.assert_close(z.grad, expected, rtol=1e-6, atol=0, msg=label)


def test_names_and_specifications():
    assert isinstance(surrogate.resolve("htaf(alpha=0.5, beta=8, hardness=0.0)"), HTAF)
    assert surrogate.resolve("superspike(slope=10)").values() == {"slope": 10}
    assert {type(surrogate.resolve(n)) for n in surrogate.names()} >= {HTAF, surrogate.ATan, surrogate.FastSigmoid}
    normalized = surrogate.resolve("htaf(normalized=True, hardness=0.0)")
    assert normalized(torch.tensor([40.0, -40.0])).tolist() == pytest.approx([1.0, 0.0], abs=1e-30)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: HTAF(alpha=0.0), ValueError, "alpha: expected a positive finite number, got 0.0"),
        (lambda: HTAF(beta=-1.0), ValueError, "beta"),
        (lambda: HTAF(alpha=float("nan")), ValueError, "nan"),
        (lambda: HTAF(alpha=float("inf")), ValueError, "inf"),
        (lambda: HTAF(alpha="1"), TypeError, "alpha"),
        (lambda: HTAF(alpha=True), TypeError, "alpha"),
        (lambda: HTAF(alpha=torch.tensor([1.0, -1.0])), ValueError, "alpha"),
        (lambda: HTAF(alpha=torch.tensor([1.0, -1.0]), learn=("alpha", "beta")), ValueError, "alpha"),
        (lambda: HTAF(alpha=torch.tensor([1])), TypeError, "int64"),
        (lambda: HTAF(hardness="soft"), ValueError, r"hardness: expected a number within \[0, 1\], got 'soft'"),
        (lambda: HTAF(hardness=1.5), ValueError, "hardness.*1.5"),
        (lambda: HTAF(hardness=-0.1), ValueError, "hardness.*-0.1"),
        (lambda: HTAF(hardness=float("nan")), ValueError, "hardness.*nan"),
        (lambda: HTAF(hardness=True), ValueError, "hardness.*True"),
        (lambda: HTAF(normalized=1), TypeError, "normalized: expected True or False, got 1"),
        (lambda: HTAF(learn=("gamma",)), ValueError, "learn: expected names of alpha, beta"),
        (lambda: HTAF(learn="alpha"), ValueError, "learn: expected names of alpha, beta"),
        (lambda: surrogate.ATan(learn=["alpha"]), ValueError, "learn: expected none"),
        (lambda: HTAF()(torch.tensor([1, 2])), TypeError, r"torch.int64 tensor of shape \(2,\)"),
        (lambda: HTAF()(1.0), TypeError, "x: expected a floating-point tensor, got 1.0"),
        (lambda: HTAF(alpha=torch.ones(3))(torch.ones(2)), ValueError, r"broadcasts to \(2,\)"),
        (lambda: HTAF(alpha=torch.ones(3))(torch.ones(1)), ValueError, r"broadcasts to \(1,\)"),
        (lambda: surrogate.ATan(0.5, 0.5), TypeError, "positional"),
        (lambda: surrogate.ATan(slope=1.0), TypeError, "slope"),
        (lambda: surrogate.resolve("atan(slope=1.0)"), ValueError, "slope.*alpha"),
        (lambda: surrogate.resolve("relu"), ValueError, "unknown surrogate 'relu'; expected one of: approx_sign, atan"),
        (lambda: surrogate.resolve("htaf(beta"), ValueError, "name or name"),
        (lambda: surrogate.resolve("htaf(8)"), ValueError, "name or name"),
        (lambda: surrogate.resolve("htaf(**{})"), ValueError, "name or name"),
        (lambda: surrogate.resolve("htaf(gamma=1)"), ValueError, "gamma"),
        (lambda: surrogate.resolve(3), TypeError, "got 3"),
        (lambda: functional.spike(torch.ones(1), 3), TypeError, "surrogate"),
        (lambda: functional.spike(torch.ones(1), "htaf", gamma=1.0), ValueError, "gamma"),
        (
            lambda: functional.spike(torch.ones(1), "atan", alpha=torch.ones(1, requires_grad=True)),
            ValueError,
            "no gradient",
        ),
        (lambda: surrogate.register(HTAF()), TypeError, "subclass"),
    ],
)
def test_bad_input_is_named(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_a_taken_name_is_refused():
    def function(x, k):
        return x

    formula = surrogate.Formula("atan", function, function)
    with pytest.raises(ValueError, match="taken"):
        surrogate.register(
            type("Other", (surrogate.Surrogate,), {"k": 1.0, "__annotations__": {"k": float}}, formula=formula)
        )
    with pytest.raises(TypeError, match="expected the fields k: float"):
        type("Other", (surrogate.Surrogate,), {}, formula=formula)


@pytest.mark.parametrize("alpha", [0.5, torch.tensor(0.5), torch.tensor([0.5, 0.7])])
@pytest.mark.parametrize("learn", [(), ("alpha", "beta")])
def test_parameters_can_be_read_and_set(alpha, learn):
    step = HTAF(alpha=alpha, learn=learn)
    torch.testing.assert_close(torch.as_tensor(step.alpha).detach(), torch.as_tensor(alpha))
    for value in (2.0, torch.as_tensor(alpha) * 3):
        step.alpha = value
        shape = torch.as_tensor(step.alpha).shape
        torch.testing.assert_close(torch.as_tensor(step.alpha).detach(), torch.as_tensor(value).expand(shape))
        x = torch.zeros(2, requires_grad=True)
        step(x).sum().backward()
        torch.testing.assert_close(x.grad, torch.as_tensor(step.alpha).detach().expand(2))
    with pytest.raises(ValueError, match="alpha"):
        step.alpha = -1.0


def test_every_parameter_can_be_set():
    triangle = surrogate.resolve("triangle")
    triangle.alpha = 3
    assert triangle.values() == {"alpha": 3.0}


def test_a_trainable_tensor_has_to_be_named():
    with pytest.raises(ValueError, match=r"alpha.*learn=\['alpha'\]"):
        HTAF(alpha=torch.nn.Parameter(torch.ones(3)))


def test_functions_and_modules_agree():
    x = torch.linspace(-1, 1, 5)
    for name in surrogate.names():
        assert torch.equal(spike(x, name), surrogate.resolve(name)(x))
    normalized = smooth(x, "htaf(normalized=True)")
    assert torch.equal(normalized, surrogate.resolve("htaf(normalized=True, hardness=0.0)")(x))


def test_checkpoints_hold_hardness_and_parameters():
    saved = HTAF(alpha=0.5, beta=8.0, normalized=True, hardness=0.3).state_dict()
    other = HTAF()
    other.load_state_dict(saved)
    assert repr(other) == "HTAF(alpha=0.5, beta=8.0, normalized=True, hardness=0.3)"
    with pytest.raises(ValueError, match=r"expected the numbers of the surrogate 'atan', got .*htaf"):
        surrogate.ATan().load_state_dict(saved)


WEIGHT = 1.0


def weighted_primitive(x, k):
    return 0.5 + WEIGHT * x / (2.0 * (k + abs(WEIGHT * x)))


def weighted_derivative(x, k):
    return 0.5 * WEIGHT * k / (k + abs(WEIGHT * x)) / (k + abs(WEIGHT * x))


def registered(slope=1.0):
    """Register a surrogate as a notebook's cell does, which may be run again with other mathematics."""

    def function(x, k):
        return slope * x * k

    class Again(surrogate.Surrogate, formula=surrogate.Formula("again", function, function)):
        k: float = 1.0

    return surrogate.register(Again)


def test_a_changed_global_number_counts(monkeypatch):
    class Weighted(surrogate.Surrogate, formula=surrogate.Formula("weighted", weighted_primitive, weighted_derivative)):
        k: float = 1.0

    surrogate.register(Weighted)
    large, step = torch.full((2**16,), 0.5), Weighted(hardness=0.0)
    step(large)
    neuron = lambda: functional.leaky(large[None, None], beta=0.0, threshold=0.0, surrogate=step)[0].flatten()[0]  # noqa: E731
    before = neuron()
    monkeypatch.setitem(globals(), "WEIGHT", 10.0)
    assert step(large)[0] == step(large[:3])[0] == neuron() != before


def test_a_surrogate_registered_again_counts_everywhere():
    registered(1.0)
    spike(torch.ones(1), "again")
    registered(7.0)
    for run in (lambda x: spike(x, "again"), surrogate.resolve("again")):
        x = torch.ones(1, requires_grad=True)
        run(x).backward()
        assert x.grad == 7


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (
            lambda: HTAF().at_hardness(2.0, torch.zeros(1)),
            ValueError,
            r"hardness: expected a number within \[0, 1\], got 2.0",
        ),
        (lambda: HTAF().at_hardness(-1.0, torch.zeros(1)), ValueError, "got -1.0"),
        (lambda: spike(torch.zeros(1), "htaf", hardness=0.5), ValueError, "htaf has no parameter 'hardness'"),
        (
            lambda: setattr(HTAF(), "alhpa", 2.0),
            AttributeError,
            "expected one of hardness, alpha, beta, .* got 'alhpa'",
        ),
        (lambda: setattr(HTAF(), "learn", ["alpha"]), AttributeError, "learn: cannot be changed"),
        (
            lambda: setattr(HTAF(learn=["alpha"]), "alpha", torch.ones(2)),
            ValueError,
            r"alpha: .* fits \(\), got \(2,\)",
        ),
        (lambda: surrogate.Formula("f", "a", "b"), TypeError, "primitive: expected a function, got 'a'"),
        (lambda: surrogate.Formula("f", lambda x, k: x, lambda x, q: x), ValueError, "the same parameters"),
        (lambda: surrogate.register(type(HTAF)("C", (HTAF,), {}, formula=HTAF.formula)), ValueError, "taken"),
    ],
)
def test_more_bad_input_is_named(make, error, words):
    with pytest.raises(error, match=words):
        make()


@pytest.mark.parametrize(
    ("function", "words"),
    [(lambda x, k: x.sum(), r"shape \(\)"), (lambda x, k: 1.0, "got float")],
    ids=["sum", "float"],
)
def test_formulas_are_tried_when_they_are_registered(function, words):
    cls = type(
        "Odd", (surrogate.Surrogate,), {"k": 1.0, "__annotations__": {"k": float}},
        formula=surrogate.Formula("odd", function, function),
    )  # fmt: skip
    with pytest.raises(TypeError, match=f"odd, primitive: expected a tensor of the shape of x, .*{words}"):
        surrogate.register(cls)


def test_a_field_that_the_formula_lacks_is_refused():
    with pytest.raises(TypeError, match="expected the fields k: float = …, got k, z"):
        type(
            "More", (surrogate.Surrogate,), {"k": 1.0, "z": 2.0, "__annotations__": {"k": float, "z": float}},
            formula=surrogate.Formula("more", weighted_primitive, weighted_derivative),
        )  # fmt: skip


def test_a_tensor_takes_the_place_of_an_annealed_number():
    torch._dynamo.reset()
    step, x = HTAF(hardness=0.0), torch.ones(2)
    step.make_variable("alpha")
    step.alpha = torch.tensor([1.0, 8.0])
    torch.testing.assert_close(torch.compile(step, backend="aot_eager")(x), step(x))


def test_the_saved_state_has_one_size():
    made = (
        HTAF(hardness=1 / 3),
        HTAF(1 / 3, 2 / 3, learn=["alpha"]),
        surrogate.resolve("atan"),
        surrogate.resolve("rectangle"),
    )
    assert {step.state_dict()["_extra_state"].shape for step in made} == {(1024,)}


@pytest.mark.parametrize("function", [functional.htaf, functional.htaf_derivative])
@pytest.mark.parametrize("normalized", [1, "yes", None, torch.tensor(True), torch.tensor(1.0)])
def test_whether_htaf_is_normalized_is_a_bool(function, normalized):
    with pytest.raises(TypeError, match=r"^normalized: expected True or False, got "):
        function(torch.zeros(2), normalized=normalized)


@pytest.mark.thorough
def test_a_neuron_compiles_as_one_graph_in_a_fresh_process():
    code = """
        import torch
        from htaf_snn import nn as hnn
        torch.compile(hnn.Leaky(beta=0.9), fullgraph=True, backend="eager")(torch.rand(3, 4, 5))
    """
    subprocess.run([sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)], check=True)
