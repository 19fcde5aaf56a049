"""The generated kernels of every neuron against its update, stepped by plain torch and differentiated by autograd."""

import math
from functools import partial

import pytest
import torch
from devices import DEVICES, QUICKLY
from stepping import CASES, NEURON_CASES, assert_gradients, leaves, results

from htaf_snn import functional
from htaf_snn.kernels.neuron import numba_cpu
from htaf_snn.neurons import NEURONS
from htaf_snn.surrogate import resolve

KERNELS = ["numba", "triton"]
# A kernel's exponential may round differently.
WITH_EXP = {"lif_ex", "lif_adex", "lif_adex_refrac"}
BY_NAME = {case.neuron: case for case in NEURON_CASES}
SPIKING = [case for case in NEURON_CASES if NEURONS[case.neuron].spikes]

# Triton's interpreter computes with NumPy, which warns of what a GPU does silently.
pytestmark = [pytest.mark.usefixtures("poisoned"), pytest.mark.filterwarnings("ignore::RuntimeWarning")]


def run(case, tensors, backend, hardness=1.0, device=None, **options):
    """Return the output, the last states and, with `return_states`, those after each time step, by name."""
    neuron, device = NEURONS[case.neuron], device or DEVICES[backend]
    given = {name: value.to(device) for name, value in tensors.items()}
    named = {name: given[name] for name in neuron.parameters} | case.options | options
    if neuron.spikes:
        named["surrogate"] = resolve(case.surrogate)
        named["surrogate"].hardness = hardness
    state = [given[f"{name}0"] for name in neuron.states]
    output, *states = functional.run(neuron, given["x"], state=state, backend=backend, **named)
    outputs = {"output": output}
    for values, suffix in zip(states, ("", ", all steps"), strict=False):
        values = [values] if isinstance(values, torch.Tensor) else values
        outputs |= {f"{name}{suffix}": value for name, value in zip(neuron.states, values, strict=True)}
    return {name: value.cpu() for name, value in outputs.items()}


def assert_same(case, found, expected, names=None):
    """Compare outputs: equal bit for bit, but for what an exponential rounds."""
    assert found.keys() == expected.keys()
    for name in names or expected:
        assert found[name].dtype == expected[name].dtype
        if case.neuron in WITH_EXP and name != "output":
            torch.testing.assert_close(found[name], expected[name], rtol=1e-6, atol=1e-6, msg=name)
        else:
            assert torch.equal(found[name], expected[name]), name


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("backend", KERNELS)
def test_kernels_equal_the_update(backend, case, request):
    if not case.per_neuron and case not in NEURON_CASES:
        request.getfixturevalue("uncompiled")  # to save a second for each of them
    tensors, every = case.inputs(), {"return_states": True}
    # On the device of the kernel, as the functions that prepare parameters round there.
    here = partial(run, case, backend="torch", device=DEVICES[backend], **every)
    expected, rounded = results(here, leaves(tensors))
    exact, exact_grads = results(partial(run, case, backend="torch", **every), leaves(tensors, torch.float64))
    found, grads = results(partial(run, case, backend=backend, **every), leaves(tensors))
    if NEURONS[case.neuron].spikes:
        assert torch.equal(expected["output"].double(), exact["output"]), "choose another seed"
        assert found["output"].any() and not found["output"].all()
    assert_same(case, found, expected)
    assert_gradients(grads, rounded, exact_grads)


@pytest.mark.parametrize("case", SPIKING, ids=str)
@pytest.mark.parametrize("backend", QUICKLY, indirect=True)
def test_smooth_outputs_and_hard_states(backend, case):
    tensors = case.inputs()
    for hardness in (0.0, 0.3):
        smooth = partial(run, case, backend="torch", hardness=hardness)
        expected, rounded = results(smooth, leaves(tensors))
        _, exact_grads = results(smooth, leaves(tensors, torch.float64))
        found, grads = results(partial(run, case, backend=backend, hardness=hardness), leaves(tensors))
        assert_same(case, found, expected, names=NEURONS[case.neuron].states)
        # The potentials are the same, and only the formula rounds.
        torch.testing.assert_close(found["output"], expected["output"], rtol=0, atol=2e-6)
        assert ((found["output"] > 0) & (found["output"] < 1)).any()
        assert_gradients(grads, rounded, exact_grads)


@pytest.mark.thorough
@pytest.mark.parametrize("features", [0, 1, 63, 1023])
@pytest.mark.parametrize("steps", [0, 1, 7, 64])
@pytest.mark.parametrize("name", ["leaky", "li", "lif_refrac", "lif_adex_refrac"])
@pytest.mark.parametrize("backend", KERNELS)
def test_sizes(backend, name, steps, features):
    case = BY_NAME[name]
    tensors = case.inputs(steps, 1, features)
    expected, rounded = results(partial(run, case, backend="torch", device=DEVICES[backend]), leaves(tensors))
    exact, exact_grads = results(partial(run, case, backend="torch"), leaves(tensors, torch.float64))
    found, grads = results(partial(run, case, backend=backend), leaves(tensors))
    assert_same(case, found, expected)
    if torch.equal(expected["output"].double(), exact["output"]) or not NEURONS[name].spikes:
        assert_gradients(grads, rounded, exact_grads)
    else:  # of many neurons some spike at another time in float64
        for label, grad in rounded.items():
            torch.testing.assert_close(grads[label], grad, rtol=1e-4, atol=2e-5 * grad.abs().max().item(), msg=label)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", ["leaky", "li", "lsnn", "izhikevich"])
@pytest.mark.parametrize("backend", KERNELS)
def test_dtypes_of_the_input(backend, name, dtype):
    if backend == "triton" and dtype == torch.float64:
        pytest.skip("the Triton kernels keep a float32 state; float64 is for the CPU")
    case, state = BY_NAME[name], torch.float64 if dtype == torch.float64 else torch.float32
    tensors = case.inputs()
    narrow = leaves(tensors | {"x": tensors["x"].to(dtype)})
    wide = leaves(tensors | {"x": tensors["x"].to(dtype).to(state)})
    found, grads = results(partial(run, case, backend=backend), narrow)
    expected, expected_grads = results(partial(run, case, backend="torch"), wide)
    assert found["output"].dtype == grads["grad x"].dtype == dtype
    if (backend, dtype, DEVICES["triton"]) == ("triton", torch.bfloat16, "cpu") and not NEURONS[name].spikes:
        # Triton's interpreter truncates to bfloat16, where a GPU rounds.
        torch.testing.assert_close(found.pop("output").float(), expected.pop("output"), rtol=2**-7, atol=0)
        assert_same(case, found, expected)
    else:
        assert_same(case, found, expected | {"output": expected["output"].to(dtype)})
    # The loss has weights of the output's dtype.
    rtol = {torch.float16: 2e-3, torch.bfloat16: 2e-2, torch.float64: 1e-10}[dtype]
    for label, grad in expected_grads.items():
        assert (grads[label] - grad).abs().max() <= rtol * grad.abs().max(), label


def spaced(value):
    """Return a copy with other numbers in between."""
    return torch.stack([value, torch.full_like(value, 1e6)], -1)[..., 0]


def transposed(value):
    return value.transpose(0, 1).contiguous().transpose(0, 1)


@pytest.mark.parametrize("layout", [spaced, transposed])
@pytest.mark.parametrize("name", ["leaky", "lif_refrac"])
@pytest.mark.parametrize("backend", KERNELS)
def test_what_is_not_contiguous(backend, name, layout):
    case = next(case for case in CASES if case.neuron == name and case.per_neuron)
    tensors = case.inputs(batch=6, features=10)
    strided = {label: value if value.ndim < 2 else layout(value) for label, value in tensors.items()}
    assert not strided["x"].is_contiguous() and not strided["v0"].is_contiguous()

    def gradients(tensors, backend):
        tensors = {label: value.requires_grad_() for label, value in tensors.items()}
        outputs = run(case, tensors, backend, return_states=True)
        # Sums have gradients that are expanded numbers; a transposed one comes from a transposed product.
        factor = torch.randn(outputs["output"].shape[::-1], generator=torch.Generator().manual_seed(0)).permute(2, 1, 0)
        loss = (outputs["output"] * factor).sum() + sum(value.sum() for value in outputs.values())
        return outputs, torch.autograd.grad(loss, list(tensors.values()))

    expected, expected_grads = gradients(tensors, "torch")
    found, grads = gradients(strided, backend)
    assert_same(case, found, expected)
    for grad, exact in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(grad, exact, rtol=1e-4, atol=1e-5 * exact.abs().max().item())


@pytest.mark.parametrize("surrogate", ["htaf", lambda shift: resolve("htaf")(shift)])
@pytest.mark.parametrize("backend", KERNELS)
def test_channels_last_is_kept(backend, surrogate):
    generator = torch.Generator().manual_seed(0)
    x, v0, factor = (
        torch.randn(shape, generator=generator).to(DEVICES[backend])
        for shape in [(5, 3, 4, 6, 2), (3, 4, 6, 2), (5, 3, 4, 6, 2)]
    )
    beta = torch.rand(4, 1, 1, generator=generator).to(DEVICES[backend])

    def results(layout, backend):
        inputs = {"x": layout(x), "v0": layout(v0), "beta": beta.clone()}
        inputs = {name: value.detach().requires_grad_() for name, value in inputs.items()}
        spikes, v, states = functional.run(
            NEURONS["leaky"], inputs["x"], state=inputs["v0"], beta=inputs["beta"], surrogate=surrogate,
            return_states=True, backend=backend,
        )  # fmt: skip
        loss = (spikes * factor).sum() + (states * factor).sum() + v.sum()
        return (spikes, v, states), torch.autograd.grad(loss, list(inputs.values()))

    def last(value):
        return value.movedim(-3, -1).contiguous().movedim(-1, -3)

    outputs, grads = results(last, backend)
    expected, expected_grads = results(torch.clone, "torch")
    assert all(output.movedim(-3, -1).is_contiguous() for output in (*outputs, *grads[:2]))
    torch.testing.assert_close(outputs, expected)
    for name, grad, exact in zip(("x", "v0", "beta"), grads, expected_grads, strict=True):
        torch.testing.assert_close(grad, exact, rtol=1e-4, atol=1e-5 * exact.abs().max().item(), msg=name)


@pytest.mark.parametrize("case", NEURON_CASES, ids=str)
@pytest.mark.parametrize("backend", QUICKLY, indirect=True)
def test_nan_stays_in_its_neuron(backend, case):
    tensors = case.inputs()
    found = {}
    for label, value in (("number", 0.0), ("nan", math.nan)):
        tensors["x"][1, 0, 2] = value
        given = leaves(tensors)
        outputs = run(case, given, backend)
        (grad,) = torch.autograd.grad(sum(value.sum() for value in outputs.values()), given["x"])
        found[label] = {name: value.detach() for name, value in outputs.items()} | {"grad": grad}
    others = torch.ones(tensors["x"].shape[1:], dtype=torch.bool)
    others[0, 2] = False
    for name, value in found["nan"].items():
        assert torch.equal(value[..., others], found["number"][name][..., others]), name
    state = next(name for name in NEURONS[case.neuron].states if name in ("v", "i_exc"))
    assert found["nan"][state][0, 2].isnan()
    output = found["nan"]["output"][1:, 0, 2]
    assert not output.any() if NEURONS[case.neuron].spikes else output.isnan().all()


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=() if case in NEURON_CASES else pytest.mark.thorough)
        for case in CASES
        if not case.per_neuron
    ],
    ids=str,
)
@pytest.mark.parametrize("backend", KERNELS)
def test_saving_in_bfloat16_rounds_gradients_only(backend, case, request):
    if case not in NEURON_CASES or case.neuron not in ("leaky", "lsnn", "lif_adex_refrac"):
        request.getfixturevalue("uncompiled")
    tensors = case.inputs()
    # In sums over neurons gradients may cancel, and errors do not.
    tensors |= {name: tensors[name].expand(tensors["x"].shape[1:]).clone() for name in NEURONS[case.neuron].parameters}
    whole, grads = results(partial(run, case, backend=backend), leaves(tensors))
    found, rounded = results(partial(run, case, backend=backend, save_dtype=torch.bfloat16), leaves(tensors))
    for name, value in whole.items():
        assert torch.equal(found[name], value), name
    for name, grad in grads.items():
        # Izhikevich's potentials are some -70, of which bfloat16 keeps no more than halves, and grow as their square.
        limit = 3e-2 if case.neuron == "izhikevich" else 2e-2
        assert (rounded[name] - grad).norm() <= limit * grad.norm(), name


@pytest.mark.parametrize("case", NEURON_CASES, ids=str)
@pytest.mark.parametrize("backend", QUICKLY, indirect=True)
def test_checkpointing_changes_nothing(backend, case):
    tensors = case.inputs()
    whole, grads = results(partial(run, case, backend=backend), leaves(tensors))
    found, pieces = results(partial(run, case, backend=backend, checkpoint_every=5), leaves(tensors))
    for name, value in whole.items():
        assert torch.equal(found[name], value), name
    for name, grad in grads.items():  # parameters' are summed in another order
        torch.testing.assert_close(pieces[name], grad, rtol=1e-5, atol=1e-5 * grad.abs().max().item(), msg=name)


# At hardness 0 these are differentiable in all that they return but where a spike, which has no gradient in the states,
# comes or goes.
DIFFERENTIABLE = [
    case
    for case in CASES
    if not case.per_neuron
    and case.neuron != "lif_refrac"  # whose mask has the surrogate's gradient, and is hard
    and (
        not NEURONS[case.neuron].spikes
        or case.neuron in ("alpha", "lapicque", "state_leaky")
        or case.options.get("reset_delay", False)
        or case.options.get("detach_reset", False)
    )
]


@pytest.mark.parametrize("case", DIFFERENTIABLE, ids=str)
def test_gradcheck_of_the_smooth_step(case, request):
    if case not in NEURON_CASES:
        request.getfixturevalue("uncompiled")
    tensors = leaves(case.inputs(4, 2, 3), torch.float64)

    def outputs(*values):
        named = dict(zip(tensors, values, strict=True))
        return tuple(run(case, named, "numba", hardness=0.0, return_states=True).values())

    assert torch.autograd.gradcheck(outputs, tuple(tensors.values()))


def test_neurons_of_all_kinds_are_checked_by_differences():
    expected = {"leaky", "rleaky", "synaptic", "rsynaptic", "lapicque", "alpha", "lif", "lsnn", "parametric_lif", "li"}
    assert {case.neuron for case in DIFFERENTIABLE} == expected | {"li_box", "state_leaky"}


def test_one_compilation_serves_all_sizes(monkeypatch):
    made, compiled = [], numba_cpu.compiled
    monkeypatch.setattr(numba_cpu, "compiled", lambda function: made.append(compiled(function)) or made[-1])
    numba_cpu._functions.cache_clear()
    case = BY_NAME["synaptic"]
    for steps in (1, 7, 64):
        for features in (1, 3, 100):
            results(partial(run, case, backend="numba"), leaves(case.inputs(steps, 2, features)))
    assert len(made) == 2
    assert [len(kernel.signatures) for kernel in made] == [1, 1]
