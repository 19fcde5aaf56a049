"""Every neuron of snnTorch and Norse that has a fused layer: from it, to it, and their states."""

import copy

import norse.torch as norse
import pytest
import snntorch as snn
import torch
from norse.torch.functional import izhikevich
from norse.torch.functional.reset import reset_subtract
from stepping import CASES, assert_gradients, flattened, leaves, results

import htaf_snn
from htaf_snn import HTAF, interop
from htaf_snn import nn as hnn
from htaf_snn.interop import norse as of_norse
from htaf_snn.interop import snntorch as of_snntorch
from htaf_snn.neurons import NEURONS

pytestmark = pytest.mark.usefixtures("registered")

TITLES = {name: neuron.title for name, neuron in NEURONS.items()}
# The neurons that are not recurrent let the gradient through the reset.
CONVERTED = [
    case
    for case in CASES
    if TITLES[case.neuron] in {**of_snntorch.LAYERS, **of_norse.LAYERS} and not case.options.get("detach_reset")
    if case.neuron not in ("rleaky", "rsynaptic")  # see test_recurrent.py
]
FROM = {"snntorch": interop.from_snntorch, "norse": interop.from_norse}
TO = {"snntorch": interop.to_snntorch, "norse": interop.to_norse}


def library_of(layer):
    return "snntorch" if type(layer).__name__ in of_snntorch.LAYERS else "norse"


def layer_of(case, learns):
    """Return the layer of a case, which learns all of its parameters but where its library cannot."""
    kind, tensors = getattr(hnn, TITLES[case.neuron]), case.inputs()
    parameters = {name: tensors[name] for name in kind.definition.parameters}
    learn = [name for name in parameters if learns and (case.neuron, name) != ("state_leaky", "beta")]
    learn = [name for name in learn if name not in ("v_rest", "u_rest")]
    given = {("reset_mechanism" if key == "reset" else key): value for key, value in case.options.items()}
    if case.neuron == "lif_box":
        given = case.options
    given = {k: v for k, v in given.items() if k != "detach_reset"} if TITLES[case.neuron] in of_norse.LAYERS else given
    if TITLES[case.neuron] in of_snntorch.LAYERS:
        given |= {f"learn_{name}": True for name in learn}
    else:
        given |= {"learn": learn}
    surrogate = {"surrogate": case.surrogate} if kind.definition.spikes else {}
    return kind(**parameters, **given, **surrogate)


def learned(module):
    """Return what a neuron learns, by name."""
    if hasattr(module, "p"):
        values = {**flattened(module.p), "dt": module.dt}
        return {k: v for k, v in values.items() if isinstance(v, torch.Tensor) and v.requires_grad}
    return dict(module.named_parameters(recurse=False))


def stepped(neuron, x, state):
    """Return the outputs of a library's neuron at all time steps and its last state."""
    if isinstance(neuron, snn.StateLeaky):  # an initial state is an input before the first one
        spikes, v = neuron(torch.cat([state[0][None], x]))
        return spikes[1:], (v[-1],)
    if hasattr(neuron, "record_states"):
        return neuron(x, state)
    outputs = []
    for current in x:
        if isinstance(neuron, snn.SpikingNeuron):
            output, *state = neuron(current, *(state or ()))
        else:
            output, state = neuron(current, state)
        outputs.append(output)
    return torch.stack(outputs), state


def run_library(neuron, layer, tensors):
    library = library_of(layer)
    convert, back = {
        "snntorch": (interop.state_to_snntorch, interop.state_from_snntorch),
        "norse": (interop.state_to_norse, interop.state_from_norse),
    }[library]
    names = list(layer.definition.states)
    start = tuple(tensors[f"{name}0"] for name in names)
    output, last = stepped(neuron, tensors["x"], convert(layer, start))
    last = back(layer, tuple(last) if library == "snntorch" else last)
    return {"output": output, **dict(zip(names, last if len(names) > 1 else (last,), strict=True))}


def run_layer(layer, tensors):
    names = list(layer.definition.states)
    start = tuple(tensors[f"{name}0"] for name in names)
    output, last = layer(tensors["x"], start)
    return {"output": output, **dict(zip(names, last if len(names) > 1 else (last,), strict=True))}


def inputs(case, module, dtype=None):
    tensors = case.inputs()
    names = ["x", *(f"{name}0" for name in NEURONS[case.neuron].states)]
    given = leaves({name: tensors[name] for name in names}, dtype)
    return {**given, **{name: value for name, value in sorted(learned(module).items())}}


@pytest.mark.usefixtures("uncompiled")  # compiled kernels are compared in test_neuron_kernels.py
@pytest.mark.parametrize("case", CONVERTED, ids=str)
def test_conversions_equal_stepping_the_library(case):
    layer = layer_of(case, learns=True)
    convert = TO[library_of(layer)]
    neuron, exact = convert(layer), convert(copy.deepcopy(layer).double())
    expected, rounded_grads = results(lambda t: run_library(neuron, layer, t), inputs(case, neuron))
    precise, grads = results(lambda t: run_library(exact, layer, t), inputs(case, exact, torch.float64))
    for converted in (layer, FROM[library_of(layer)](neuron)):
        found, found_grads = results(lambda t, m=converted: run_layer(m, t), inputs(case, converted))
        if layer.definition.spikes:
            assert torch.equal(expected["output"].double(), precise["output"]), "choose another seed"
            assert torch.equal(found["output"], expected["output"]) and 0 < found["output"].mean() < 1
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-6)
        assert_gradients(found_grads, rounded_grads, grads)


@pytest.mark.parametrize("learns", [False, True])
@pytest.mark.parametrize("case", CONVERTED, ids=str)
def test_there_and_back_is_the_identity(case, learns):
    layer = layer_of(case, learns)
    library = library_of(layer)
    neuron = TO[library](layer)
    back = FROM[library](neuron)
    assert type(back) is type(layer) and back.options == layer.options
    assert learned(back).keys() == learned(layer).keys() == learned(neuron).keys()
    assert back.state_dict().keys() == layer.state_dict().keys()
    for name, value in layer.state_dict().items():
        assert torch.equal(back.state_dict()[name], value) and back.state_dict()[name].dtype == value.dtype
        assert back.state_dict()[name].data_ptr() != value.data_ptr()


def test_every_neuron_is_converted():
    found = {TITLES[case.neuron] for case in CONVERTED}
    layers = {**of_snntorch.LAYERS, **of_norse.LAYERS}
    assert found == {name for name, layer in layers.items() if not issubclass(layer, hnn.RecurrentLayer)}


# -- from neurons as users make them, from rest --

F = 7
PER_NEURON = torch.linspace(0.3, 0.9, F)
SNNTORCH = {
    "leaky": lambda: snn.Leaky(PER_NEURON, graded_spikes_factor=2.0, reset_delay=False),
    "leaky, integers": lambda: snn.Leaky(1, threshold=2, learn_threshold=False, reset_mechanism="zero"),
    "lapicque by beta": lambda: snn.Lapicque(beta=0.8),
    "lapicque by R and C": lambda: snn.Lapicque(R=2, C=3, time_step=1, reset_mechanism="zero"),
    "lapicque by beta and C": lambda: snn.Lapicque(beta=torch.tensor(0.8), C=2.0),
    "synaptic": lambda: snn.Synaptic(PER_NEURON, 0.8, learn_alpha=True, learn_beta=True, reset_mechanism="none"),
    "alpha": lambda: snn.Alpha(PER_NEURON, 0.2, threshold=0.2, learn_threshold=True),
    "state leaky": lambda: snn.StateLeaky(PER_NEURON, F, threshold=0.8, learn_threshold=True),
    "without surrogate": lambda: snn.Synaptic(0.9, 0.8, surrogate_disable=True),
    "hard resets": lambda: snn.Leaky(0.9, spike_grad=HTAF(hardness=0.3)),
}


@pytest.mark.parametrize("name", SNNTORCH)
def test_from_snntorch_runs_from_rest(name):
    neuron, x = SNNTORCH[name](), 2 * torch.randn(12, 3, F, generator=torch.Generator().manual_seed(1))
    zeros = (torch.zeros(3, F),) if name == "state leaky" else None
    expected, last = stepped(neuron, x, zeros)
    layer = interop.from_snntorch(neuron)
    spikes, state = layer(x)
    torch.testing.assert_close(spikes, expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(spikes > 0.5, expected > 0.5) and 0 < expected.mean() < 2
    torch.testing.assert_close(interop.state_to_snntorch(layer, state), tuple(last), rtol=1e-5, atol=1e-5)
    assert learned(layer).keys() == learned(neuron).keys()


def excitable(kind, **values):
    """Return parameters of Norse, and those within, with a low threshold and a surrogate with a gradient."""
    given = {"v_th": torch.tensor(0.3), "method": "super", "alpha": torch.tensor(2.0), **values}
    within = {name: excitable(type(v), **values) for name, v in kind._field_defaults.items() if hasattr(v, "_fields")}
    return kind(**within, **{name: value for name, value in given.items() if name in kind._fields})


NORSE = {
    "IAF": norse.IAFParameters,
    "IAFCell": norse.IAFParameters,
    "LI": norse.LIParameters,
    "LICell": norse.LIParameters,
    "LIBoxCell": norse.LIBoxParameters,
    "LIF": norse.LIFParameters,
    "LIFCell": norse.LIFParameters,
    "LIFAdEx": norse.LIFAdExParameters,
    "LIFAdExCell": norse.LIFAdExParameters,
    "LIFAdExRefracCell": norse.LIFAdExRefracParameters,
    "LIFBoxCell": norse.LIFBoxParameters,
    "LIFEx": norse.LIFExParameters,
    "LIFExCell": norse.LIFExParameters,
    "LIFRefracCell": norse.LIFRefracParameters,
    "LSNN": norse.LSNNParameters,
    "LSNNCell": norse.LSNNParameters,
}


@pytest.mark.parametrize("name", NORSE)
def test_from_norse_runs_from_rest(name):
    neuron = getattr(norse, name)(excitable(NORSE[name], v_reset=torch.tensor(-0.1)))
    x = 6 * torch.randn(15, 3, F, generator=torch.Generator().manual_seed(0))
    layer = interop.from_norse(neuron)
    assert not list(layer.parameters())
    expected, last = stepped(neuron, x, None)
    found, state = layer(x)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    if layer.definition.spikes:
        assert torch.equal(found, expected.detach()) and 0 < found.mean() < 1
    torch.testing.assert_close(flattened(interop.state_to_norse(layer, state)), flattened(last), rtol=1e-5, atol=1e-5)


BEHAVIOURS = {n: v for n, v in vars(izhikevich).items() if isinstance(v, izhikevich.IzhikevichSpikingBehavior)}


@pytest.mark.parametrize("kind", [norse.Izhikevich, norse.IzhikevichCell])
@pytest.mark.parametrize("name", BEHAVIOURS)
def test_izhikevich_keeps_the_behaviour_and_its_state_at_rest(name, kind):
    neuron = kind(BEHAVIOURS[name], dt=0.002)
    x = 15 + 20 * torch.randn(60, 3, F, generator=torch.Generator().manual_seed(0))
    layer = interop.from_norse(neuron)
    expected, _ = stepped(neuron, x, None)
    assert torch.equal(layer(x)[0], expected.detach()) and not list(layer.parameters())
    assert expected.any() != name.startswith("inhibition_induced")
    assert layer.v_rest == BEHAVIOURS[name].s.v and layer.u_rest == BEHAVIOURS[name].s.u
    back = interop.to_norse(layer)
    assert torch.equal(back(x)[0], expected) and back.spiking_method.s.v.requires_grad


@pytest.mark.parametrize(("method", "backend"), [("super", "torch"), ("atan(alpha=2)", "auto")])
def test_refractory_neurons_with_a_method_of_norse_are_computed_by_torch(method, backend):
    p = norse.LIFRefracParameters(norse.LIFParameters(method=method))
    assert interop.from_norse(norse.LIFRefracCell(p)).backend == backend
    assert interop.from_norse(norse.LIFCell(p.lif)).backend == "auto"


def test_a_reset_by_subtraction_is_converted():
    neuron = norse.LIFBoxCell(excitable(norse.LIFBoxParameters, reset_method=reset_subtract))
    layer = interop.from_norse(neuron)
    assert layer.options == {"reset": "subtract"}
    assert interop.to_norse(layer).p.reset_method is reset_subtract


def test_the_default_that_norse_marks_is_not_learned():
    norse.IAF()(torch.rand(3, 2, F))
    assert norse.IAF().p.v_reset.requires_grad, "mended in Norse: simplify _is_learned"
    assert not list(interop.from_norse(norse.IAF()).parameters())
    chosen = norse.IAF(norse.IAFParameters(v_reset=torch.tensor(0.0, requires_grad=True)))
    assert [name for name, _ in interop.from_norse(chosen).named_parameters()] == ["v_reset"]


def test_a_state_leaky_whose_tau_was_set_is_converted_by_it():
    neuron = snn.StateLeaky(0.5, 1)
    neuron.tau = torch.tensor(4.0)
    assert interop.from_snntorch(neuron).beta == 0.75


# -- refusals --


class Subclass(snn.Leaky):
    def forward(self, x):
        return x


class SubclassOfLIF(norse.LIF):
    pass


def namesake(neuron):
    """Return a subclass of the same name."""
    return type(neuron.__name__, (neuron,), {"__module__": __name__})


@pytest.mark.filterwarnings("ignore:Inhibition is an unstable feature")
@pytest.mark.parametrize(
    ("neuron", "message"),
    [
        (lambda: snn.Leaky(0.9, inhibition=True), "neuron: expected inhibition=False, .*, got True"),
        (lambda: snn.Alpha(0.9, 0.8, state_quant=abs), "neuron: expected state_quant=False, .*, got <built-in"),
        (lambda: snn.Lapicque(0.9, learn_beta=True), "neuron: expected learn_beta=False"),
        (lambda: snn.StateLeaky(0.9, 1, learn_beta=True), "neuron: expected learn_beta=False, .* learns tau"),
        (lambda: snn.StateLeaky(0.9, 1, output=False), "neuron: expected output=True, .*, got False"),
        (lambda: snn.StateLeaky(0.9, 1, kernel_truncation_steps=3), "expected kernel_truncation_steps=None, .* got 3"),
        (lambda: snn.StateLeaky(0.9, 1, graded_spikes_factor=2.0), "graded_spikes_factor=1 but for a Leaky, got tens"),
        (
            lambda: snn.StateLeaky(0.9, 1, learn_graded_spikes_factor=True),
            "expected graded_spikes_factor=1 but for a Leaky, got Parameter",
        ),
        (lambda: snn.SLSTM(3, 3), r"neuron: expected one of snntorch's Alpha, .*Synaptic, got snntorch\._neu.*SLSTM$"),
        (lambda: Subclass(0.9), r"neuron: expected one of snntorch's .*, got test_conversions\.Subclass$"),
        (lambda: namesake(snn.Leaky)(0.9), r"neuron: expected one of snntorch's .*, got test_conversions\.Leaky$"),
        (lambda: hnn.Leaky(0.9), r"neuron: expected one of snntorch's .*, got htaf_snn\.nn\.spiking\.Leaky$"),
    ],
)
def test_what_the_fused_neuron_lacks_is_refused_for_snntorch(neuron, message):
    with pytest.raises((TypeError, ValueError), match=message):
        interop.from_snntorch(neuron())


def custom(state, *args):
    return norse.lif_feed_forward_step(state, *args)


def with_activation(neuron):
    neuron.activation = custom
    return neuron


@pytest.mark.parametrize(
    ("neuron", "message"),
    [
        (lambda: norse.LIFEx(record_states=True), "record_states: expected False"),
        (lambda: norse.LSNN(adjoint=True), "activation: expected lsnn_feed_forward_step, .* got lsnn_feed_forward_adj"),
        (lambda: with_activation(norse.LIF()), "activation: expected lif_feed_forward_step, .*, got custom"),
        (
            lambda: norse.LIFBoxCell(norse.LIFBoxParameters(reset_method=abs)),
            "reset_method: expected one of reset_value, reset_subtract, got <built-in function abs>",
        ),
        (lambda: norse.LIFCell(norse.LIFParameters(method="adjoint")), "method: expected one of .*, got 'adjoint'"),
        (
            lambda: norse.LIFRefracCell(norse.LIFRefracParameters(norse.LIFParameters(method="htaf"))),
            "alpha: expected a value chosen for 'htaf', got Norse's default of 100",
        ),
        (
            lambda: norse.CobaLIFCell(3, 3),
            r"neuron: expected one of norse.torch's IAF, IAFCell, .*LSNNRecurrentCell, got norse\..*CobaLIFCell$",
        ),
        (lambda: SubclassOfLIF(), r"neuron: expected one of norse.torch's .*, got test_conversions\.SubclassOfLIF$"),
        (lambda: namesake(norse.LIF)(), r"neuron: expected one of norse.torch's .*, got test_conversions\.LIF$"),
    ],
)
def test_what_the_fused_neuron_lacks_is_refused_for_norse(neuron, message):
    with pytest.raises((TypeError, ValueError), match=message):
        interop.from_norse(neuron())


@pytest.mark.parametrize(
    ("convert", "layer", "message"),
    [
        (interop.to_snntorch, lambda: hnn.LIF(), r"layer: expected one of htaf_snn.nn's Alpha, .*, got .*\.LIF$"),
        (interop.to_norse, lambda: hnn.Leaky(0.9), r"layer: expected one of htaf_snn.nn's IAF, .*, got .*\.Leaky$"),
        (interop.to_norse, lambda: hnn.CobaLIF(), r"layer: expected one of htaf_snn.nn's IAF, .*, got .*\.CobaLIF$"),
        (interop.to_snntorch, lambda: hnn.StateLeaky(0.9, learn_beta=True), "beta: expected a buffer, .* got a param"),
        (
            interop.to_norse,
            lambda: hnn.LSNN(detach_reset=True),
            "detach_reset: expected False: norse.torch.LSNN lets the gradient through its reset",
        ),
        (interop.to_norse, lambda: hnn.LIFEx(surrogate=HTAF(hardness=0.3)), "surrogate: expected hardness 1"),
    ],
)
def test_layers_that_cannot_be_converted_are_refused(convert, layer, message):
    with pytest.raises((TypeError, ValueError), match=message):
        convert(layer())


def test_a_layer_below_hardness_1_is_converted_registered_only():
    layer = hnn.Synaptic(0.9, 0.8, surrogate=HTAF(hardness=0.3))
    interop.to_snntorch(layer)
    htaf_snn.unregister()
    with pytest.raises(RuntimeError, match="hardness: below 1"):
        interop.to_snntorch(layer)


@pytest.mark.parametrize(
    ("convert", "layer", "state", "message"),
    [
        (interop.state_from_snntorch, hnn.LIF(), torch.zeros(2, 3), "layer: expected one of htaf_snn.nn's Alpha"),
        (interop.state_to_snntorch, hnn.LIF(), torch.zeros(2, 3), "layer: expected one of htaf_snn.nn's Alpha"),
        (interop.state_from_norse, hnn.Leaky(0.9), torch.zeros(2, 3), "layer: expected one of htaf_snn.nn's IAF"),
        (interop.state_to_norse, hnn.Leaky(0.9), torch.zeros(2, 3), "layer: expected one of htaf_snn.nn's IAF"),
        (interop.state_from_snntorch, hnn.Synaptic(0.9, 0.8), torch.zeros(2, 3), r"expected \(v, i\), got 1 tensors"),
        (interop.state_to_snntorch, hnn.Leaky(0.9), (torch.zeros(2), torch.zeros(2)), r"expected \(v\), got 2 tensors"),
        (interop.state_to_norse, hnn.LIF(), torch.zeros(2, 3), r"state: expected \(v, i\), got 1 tensors"),
        (interop.state_from_norse, hnn.LSNN(), norse.LIFFeedForwardState(0, 0), "state: expected v, i, b, got v, i"),
    ],
)
def test_states_that_do_not_fit_are_refused(convert, layer, state, message):
    with pytest.raises((TypeError, ValueError), match=message):
        convert(layer, state)
