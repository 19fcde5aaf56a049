"""Every neuron's update against the library that it comes from, stepped by the library's own code."""

from functools import partial
from pathlib import Path

import norse.torch as norse
import pytest
import stepping
import torch
from stepping import CASES, RECURRENT_CASES, assert_gradients, leaves, results
from torch.nn.functional import linear

from htaf_snn import neurons
from htaf_snn.kernels.neuron import reference
from htaf_snn.neurons import NEURONS
from htaf_snn.neurons.base import Sum
from htaf_snn.surrogate import resolve

NORSE = {
    "li_box": (norse.LIBoxParameters, norse.LIBoxCell),
    "li": (norse.LIParameters, norse.LICell),
    "lif_box": (norse.LIFBoxParameters, norse.LIFBoxCell),
    "iaf": (norse.IAFParameters, norse.IAFCell),
    "lif": (norse.LIFParameters, norse.LIFCell),
    "lif_refrac": (norse.LIFRefracParameters, norse.LIFRefracCell),
    "lif_ex": (norse.LIFExParameters, norse.LIFExCell),
    "lif_adex": (norse.LIFAdExParameters, norse.LIFAdExCell),
    "lif_adex_refrac": (norse.LIFAdExRefracParameters, norse.LIFAdExRefracCell),
    "lsnn": (norse.LSNNParameters, norse.LSNNCell),
}


def assert_equal_to_the_library(case, run):
    tensors = case.inputs()
    library = partial(case.library, options=case.options, surrogate=case.surrogate)
    expected, rounded_grads = results(library, leaves(tensors))
    exact, grads = results(library, leaves(tensors, torch.float64))
    found, found_grads = results(run, leaves(tensors))
    if NEURONS[case.neuron].spikes:
        assert torch.equal(expected["output"].double(), exact["output"]), "choose another seed"
        assert found["output"].any() and not found["output"].all()
        assert torch.equal(found["output"], expected["output"])
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if case.exact:
            assert torch.equal(found[name], value), name
        torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-6)
    assert_gradients(found_grads, rounded_grads, grads)
    _, exact_grads = results(run, leaves(tensors, torch.float64))
    assert_gradients(exact_grads, grads, grads, rtol=1e-10)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_library(case):
    assert_equal_to_the_library(case, partial(stepping.stepped, case))


@pytest.mark.parametrize("case", RECURRENT_CASES, ids=str)
def test_recurrent_equals_the_library(case):
    neuron, surrogate = NEURONS[case.neuron], resolve(case.surrogate)

    def run(tensors):
        states, keywords = stepping.arguments(case, tensors)
        outputs = [torch.zeros_like(tensors["x"][0])]
        for x in tensors["x"]:
            given = Sum(x, linear(outputs[-1], tensors["weights"]))
            output, states = reference.step(neuron, given, states, keywords, surrogate)
            outputs.append(output)
        return {"output": torch.stack(outputs[1:]), **dict(zip(neuron.states, states, strict=True))}

    assert_equal_to_the_library(case, run)


def test_every_file_is_a_neuron_of_its_name():
    files = [path for path in Path(neurons.__file__).parent.glob("*.py") if "\nNEURON = " in path.read_text()]
    assert list(NEURONS) == sorted(path.stem for path in files)
    assert {case.neuron for case in CASES} == set(NEURONS)


@pytest.mark.parametrize("case", [case for case in CASES if NEURONS[case.neuron].spikes], ids=str)
def test_states_are_hard_at_any_hardness(case):
    neuron, surrogate, tensors = NEURONS[case.neuron], resolve(case.surrogate), case.inputs()
    states, keywords = stepping.arguments(case, tensors)
    for x in tensors["x"]:
        surrogate.hardness = 0.0
        smooth, soft_states = reference.step(neuron, x, states, keywords, surrogate)
        surrogate.hardness = 1.0
        output, new = reference.step(neuron, x, states, keywords, surrogate)
        assert all(map(torch.equal, soft_states, new))
        silent = states[-1] > 0 if "rho" in neuron.states else torch.zeros_like(x, dtype=torch.bool)
        assert torch.equal(smooth > 0.5, output > 0) and not smooth[silent].any()
        assert (smooth[~silent] > 0).all() and (smooth < 1).all()
        states = new


def numbers(values):
    """Return what is not of the surrogate or a function, rounded to float32 as in Norse's tensors."""
    own = {name: value for name, value in values.items() if name not in ("method", "alpha", "reset_method")}
    return {name: torch.as_tensor(value).detach().float().item() for name, value in own.items()}


@pytest.mark.parametrize("name", NORSE)
def test_defaults_and_states_at_rest_are_those_of_norse(name):
    neuron, (kind, cell) = NEURONS[name], NORSE[name]
    assert numbers({**stepping.flattened(kind()), "dt": 0.001}) == numbers({"dt": 0.001, **neuron.parameters})
    different = {name: torch.tensor(float(index)) for index, name in enumerate(neuron.parameters, start=1)}
    at_rest = stepping.flattened(cell(stepping.filled(kind, different)).state_fallback(torch.zeros(2)))
    assert {state: different.get(value, value) for state, value in neuron.states.items()} == {
        state: value.flatten()[0] for state, value in at_rest.items()
    }


def test_defaults_of_those_without_a_cell_are_those_of_norse():
    behaviour = norse.functional.izhikevich.tonic_spiking
    rest = {f"{name}_rest": value for name, value in behaviour.s._asdict().items()}
    assert numbers({**behaviour.p._asdict(), "dt": 0.001, **rest}) == numbers(NEURONS["izhikevich"].parameters)
    coba = norse.CobaLIFParameters()._asdict()
    assert numbers({**coba, "dt": 0.001}) == numbers(NEURONS["coba_lif"].parameters)
