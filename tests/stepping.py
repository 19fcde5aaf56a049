"""Cases of every neuron, stepped through time by the library that it comes from, and by its own update."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import norse.torch as norse
import pytest
import snntorch
import torch
from norse.torch.functional.lif_adex_refrac import lif_adex_refrac_feed_forward_step, lif_adex_refrac_step
from norse.torch.functional.reset import reset_subtract, reset_value
from torch.nn.functional import linear

import htaf_snn
from htaf_snn.kernels.neuron import reference
from htaf_snn.neurons import NEURONS
from htaf_snn.surrogate import resolve

STEPS, BATCH, FEATURES = 17, 3, 11


@dataclass(frozen=True)
class Case:
    """A neuron with options and inputs.

    Attributes:
        neuron: its name.
        options: a value for each.
        ranges: of each parameter, and of each initial state, which has the state's name and a 0.
        library: steps the library's neuron; maps `inputs()`, the options and the surrogate to what `stepped` returns.
        scale: of x, which is normally distributed.
        bias: the mean of x.
        per_neuron: whether parameters differ between neurons; else they are numbers, the middles of their ranges.
        recurrent: whether the spikes return through `weights`.
        exact: whether the library computes in the same order, so that all is equal bit for bit.
        seed: one for which float32 and float64 spike at the same times.
    """

    neuron: str
    options: dict[str, Any]
    ranges: dict[str, tuple[float, float]]
    library: Callable[[dict, dict, str], dict]
    scale: float = 1.0
    bias: float = 0.0
    per_neuron: bool = False
    recurrent: bool = False
    exact: bool = True
    seed: int = 0
    surrogate: str = "htaf(alpha=0.7,beta=5.0)"

    def __str__(self):
        options = [f"{name}={value}" for name, value in self.options.items()]
        flags = [name for name in ("recurrent", "per_neuron") if getattr(self, name)]
        return "-".join([self.neuron, *options, *flags])

    def inputs(self, steps=STEPS, batch=BATCH, features=FEATURES):
        """Return x, the parameters, the initial states and, if recurrent, `weights`."""
        g = torch.Generator().manual_seed(self.seed)
        tensors = {"x": self.bias + self.scale * torch.randn(steps, batch, features, generator=g)}
        # Parameters that differ between neurons take these in turn; snnTorch's StateLeaky needs a beta of the first.
        shapes = [(features,), (batch, features), (batch, 1), ()]
        for index, name in enumerate(NEURONS[self.neuron].parameters):
            low, high = self.ranges[name]
            shape = shapes[index % len(shapes)] if self.per_neuron else ()
            fraction = torch.rand(shape, generator=g) if self.per_neuron else 0.5
            tensors[name] = torch.as_tensor(low + (high - low) * fraction)
        for name in NEURONS[self.neuron].states:
            low, high = self.ranges[f"{name}0"]
            tensors[f"{name}0"] = low + (high - low) * torch.rand(batch, features, generator=g)
        if self.recurrent:
            tensors["weights"] = torch.randn(features, features, generator=g)
        return tensors


def leaves(tensors, dtype=None):
    return {name: value.detach().to(dtype).requires_grad_() for name, value in tensors.items()}


def results(run, tensors):
    """Return outputs, and gradients by name; the outputs are weighted so that no gradient is trivial."""
    outputs = run(tensors)
    weights = [torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape) for y in outputs.values()]
    loss = sum((y * w).sum() for y, w in zip(outputs.values(), weights, strict=True))
    grads = torch.autograd.grad(loss, list(tensors.values()), allow_unused=True)
    pairs = zip(tensors.items(), grads, strict=True)
    return (
        {name: value.detach() for name, value in outputs.items()},
        {f"grad {name}": torch.zeros_like(value) if grad is None else grad for (name, value), grad in pairs},
    )


def assert_gradients(found, rounded, exact, rtol=1e-5):
    """Compare gradients with the library's in float64, relative to the largest.

    Where sums cancel or spikes amplify errors, float32 is further off in the library too, `rounded`: a few times that.
    """
    assert found.keys() == exact.keys()
    for name, grad in exact.items():
        if not grad.numel():
            continue
        worst, largest = (found[name] - grad).abs().max(), grad.abs().max()
        limit = max(rtol * largest, 4 * (rounded[name] - grad).abs().max())
        assert worst <= limit, f"{name}: {worst} of {largest}"


def arguments(case, tensors):
    """Return the initial states, and the keywords of the update but `spike`."""
    neuron = NEURONS[case.neuron]
    parameters = {name: tensors[name] for name in neuron.parameters}
    parameters |= {name: parameters[name].clamp(*limits) for name, limits in neuron.clamped.items()}
    if neuron.prepare is not None:
        parameters = neuron.prepare(**parameters)
    return [tensors[f"{name}0"] for name in neuron.states], {**parameters, **case.options}


def stepped(case, tensors):
    """Return the output of all time steps and the last states, from the neuron's own update."""
    neuron = NEURONS[case.neuron]
    surrogate = resolve(case.surrogate) if neuron.spikes else None
    output, *last = reference.run(neuron, tensors["x"], *arguments(case, tensors), surrogate, keep=False)
    return {"output": output, **dict(zip(neuron.states, last, strict=True))}


def feedback_weights(tensors):
    x = tensors["x"]
    return tensors.get("weights", torch.zeros(x.shape[-1], x.shape[-1], dtype=x.dtype))


# snnTorch


def of_snntorch(make, states):
    """Step a neuron of snnTorch, whose forward takes and returns the states in the order given."""

    def library(tensors, options, surrogate):
        delay = {"reset_delay": options["reset_delay"]} if "reset_delay" in options else {}
        neuron = make(spike_grad=resolve(surrogate), reset_mechanism=options["reset"], **delay)
        for name, value in tensors.items():
            if hasattr(neuron, name):
                delattr(neuron, name)  # a buffer, which would take no tensor with a gradient
                setattr(neuron, name, value)
        recurrent = hasattr(neuron, "recurrent")
        if recurrent:
            del neuron.recurrent
            neuron.recurrent = lambda spikes: linear(spikes, feedback_weights(tensors))
        spikes, values, outputs = torch.zeros_like(tensors["x"][0]), [tensors[f"{name}0"] for name in states], []
        for x in tensors["x"]:
            spikes, *values = neuron(x, spikes, *values) if recurrent else neuron(x, *values)
            outputs.append(spikes)
        return {"output": torch.stack(outputs), **dict(zip(states, values, strict=True))}

    return library


def state_leaky(tensors, options, surrogate):
    """Convolve with snnTorch's StateLeaky; it has no initial state, which is an input before the first one here."""
    neuron = snntorch.StateLeaky(0.5, tensors["x"].shape[-1], spike_grad=resolve(surrogate))
    del neuron.tau, neuron.threshold
    neuron.tau, neuron.threshold = 1 / (1 - tensors["beta"] + 1e-12), tensors["threshold"]
    spikes, v = neuron(torch.cat([tensors["v0"][None], tensors["x"]]))
    return {"output": spikes[1:], "v": v[-1]}


def rsynaptic(tensors, options, surrogate):
    """Step snnTorch's RSynaptic; without `reset_delay`, where that fails, Synaptic in its place."""
    make = of_snntorch(lambda **k: snntorch.RSynaptic(0.5, 0.5, linear_features=1, **k), ["i", "v"])
    if not options["reset_delay"]:
        make = of_snntorch(lambda **k: snntorch.Synaptic(0.5, 0.5, **k), ["i", "v"])
    return make(tensors, options, surrogate)


# Norse


def filled(kind, values):
    """Return a NamedTuple of Norse, and those within, with the values of these names."""
    kinds = getattr(kind, "__annotations__", {})
    found = {name: filled(kinds[name], values) for name in kind._fields if hasattr(kinds.get(name), "_fields")}
    return kind(**found, **{name: values[name] for name in kind._fields if name in values})


def flattened(state):
    """Return the tensors of a state of Norse, and of those within, by name."""
    tensors = {}
    for name, value in state._asdict().items():
        tensors |= flattened(value) if hasattr(value, "_asdict") else {name: value}
    return tensors


def of_norse(parameters, forward, recurrent=None):
    """Step a function of Norse: the feed-forward one, or the recurrent one where spikes return or it detaches.

    Args:
        parameters: class of the parameters.
        forward, recurrent: the step and the class of its state.
    """

    def library(tensors, options, surrogate):
        p = filled(
            parameters,
            {
                **tensors,
                "method": surrogate,
                "alpha": 1.0,
                "reset_method": {"value": reset_value, "subtract": reset_subtract}[options.get("reset", "value")],
            },
        )
        is_recurrent = "weights" in tensors or options.get("detach_reset", False)
        step, kind = recurrent if is_recurrent else forward
        states = {name.removesuffix("0"): value for name, value in tensors.items() if name.endswith("0")}
        x = tensors["x"]
        state = filled(kind, {"z": torch.zeros_like(x[0]), **states})
        weights = [torch.eye(x.shape[-1], dtype=x.dtype), feedback_weights(tensors)] if is_recurrent else []
        time = {"dt": tensors["dt"]} if "dt" in tensors else {}
        outputs = []
        with htaf_snn.register():
            for current in x:
                output, state = step(current, state, *weights, p, **time)
                outputs.append(output)
        last = flattened(state)
        return {"output": torch.stack(outputs), **{name: last[name] for name in states}}

    return library


# SpikingJelly


def parametric_lif(tensors, options, surrogate):
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron", reason="SpikingJelly is not installed")
    node = neuron.ParametricLIFNode(
        decay_input=options["decay_input"], detach_reset=options["detach_reset"], surrogate_function=resolve(surrogate)
    )
    del node.w
    node.w, node.v_threshold, node.v = tensors["w"], tensors["v_threshold"], tensors["v0"]
    node.v_reset = tensors["v_reset"] if options["reset"] == "value" else None
    return {"output": torch.stack([node(x) for x in tensors["x"]]), "v": node.v}


# The cases

# Beyond what the parameter is clamped to.
CLAMPED, STATE = (-0.1, 1.1), (-1.0, 1.0)
THRESHOLD = {"threshold": (0.5, 1.5)}
TIME = {"dt": (0.0008, 0.0012)}
MEMBRANE = {"tau_mem_inv": (80.0, 120.0), "v_leak": (-0.1, 0.1), **TIME, "v0": STATE}
SYNAPSE = {"tau_syn_inv": (150.0, 250.0), "i0": STATE}
RESET = {"v_th": (0.3, 0.4), "v_reset": (-0.2, 0.0)}
LIF = {**MEMBRANE, **SYNAPSE, **RESET}
LIF_EX = {**LIF, "delta_T": (0.4, 0.6)}
LIF_ADEX = {
    **LIF_EX,
    "adaptation_current": (3.0, 5.0),
    "adaptation_spike": (0.01, 0.3),
    "tau_ada_inv": (1.0, 100.0),
    "a0": STATE,
}
REFRACTORY = {"rho_reset": (1.0, 4.0), "rho0": (-2.0, 3.0)}
IZHIKEVICH = {
    "a": (0.01, 0.1),
    "b": (0.15, 0.25),
    "c": (-70.0, -50.0),
    "d": (2.0, 8.0),
    "sq": (0.035, 0.045),
    "mn": (4.9, 5.1),
    "bias": (135.0, 145.0),
    "v_th": (25.0, 35.0),
    "tau_inv": (200.0, 500.0),
    **TIME,
    "v_rest": (-70.0, -60.0),
    "u_rest": (-16.0, -10.0),
    "v0": (-70.0, 20.0),
    "u0": (-16.0, -10.0),
}
COBA = {
    "tau_syn_exc_inv": (100.0, 300.0),
    "tau_syn_inh_inv": (100.0, 300.0),
    "e_rev_E": (50.0, 70.0),
    "e_rev_I": (-110.0, -90.0),
    "c_m_inv": (80.0, 120.0),
    "g_l": (0.2, 0.3),
    "v_rest": (-25.0, -15.0),
    "v_reset": (-75.0, -65.0),
    "v_thresh": (-15.0, -5.0),
    **TIME,
    "v0": (-70.0, 0.0),
    "g_e0": (0.0, 1.0),
    "g_i0": (0.0, 1.0),
}


def snn(name, states, *arguments, **keywords):
    return of_snntorch(lambda **k: getattr(snntorch, name)(*arguments, **keywords, **k), states)


# With their first options and parameters that are numbers.
NEURON_CASES = [
    # snnTorch
    Case("lapicque", {}, {"R": (0.5, 1.5), "C": (4.0, 6.0), "time_step": (0.8, 1.2), **THRESHOLD, "v0": STATE},
         snn("Lapicque", ["v"], R=1.0, C=5.0), scale=5.0),
    Case("leaky", {}, {"beta": CLAMPED, **THRESHOLD, "v0": STATE}, snn("Leaky", ["v"], 0.5)),
    Case("rleaky", {}, {"beta": CLAMPED, **THRESHOLD, "v0": STATE}, snn("RLeaky", ["v"], 0.5, linear_features=1)),
    Case("synaptic", {}, {"alpha": CLAMPED, "beta": CLAMPED, **THRESHOLD, "i0": STATE, "v0": STATE},
         snn("Synaptic", ["i", "v"], 0.5, 0.5)),
    Case("rsynaptic", {}, {"alpha": CLAMPED, "beta": CLAMPED, **THRESHOLD, "i0": STATE, "v0": STATE}, rsynaptic),
    Case("alpha", {}, {"alpha": (0.8, 1.1), "beta": (0.3, 0.7), **THRESHOLD, "i_exc0": STATE, "i_inh0": STATE,
                       "v0": STATE}, snn("Alpha", ["i_exc", "i_inh", "v"], 0.9, 0.5)),
    Case("state_leaky", {}, {"beta": (0.2, 0.95), **THRESHOLD, "v0": STATE}, state_leaky, exact=False),
    # Norse
    Case("li_box", {}, MEMBRANE, of_norse(norse.LIBoxParameters, (norse.li_box_feed_forward_step, norse.LIBoxState))),
    Case("li", {}, {**MEMBRANE, **SYNAPSE},
         of_norse(norse.LIParameters, (norse.li_feed_forward_step, norse.LIState))),
    Case("lif_box", {}, {**MEMBRANE, **RESET},
         of_norse(norse.LIFBoxParameters, (norse.lif_box_feed_forward_step, norse.LIFBoxFeedForwardState)), scale=5.0),
    Case("iaf", {}, {**RESET, "v0": STATE},
         of_norse(norse.IAFParameters, (norse.iaf_feed_forward_step, norse.IAFFeedForwardState),
                  (norse.iaf_step, norse.IAFState))),
    Case("lif", {}, LIF,
         of_norse(norse.LIFParameters, (norse.lif_feed_forward_step, norse.LIFFeedForwardState),
                  (norse.lif_step, norse.LIFState)), scale=3.0),
    Case("lif_refrac", {}, {**LIF, **REFRACTORY},
         of_norse(norse.LIFRefracParameters, (norse.lif_refrac_feed_forward_step, norse.LIFRefracFeedForwardState),
                  (norse.lif_refrac_step, norse.LIFRefracState)), scale=3.0),
    Case("lif_ex", {}, LIF_EX,
         of_norse(norse.LIFExParameters, (norse.lif_ex_feed_forward_step, norse.LIFExFeedForwardState),
                  (norse.lif_ex_step, norse.LIFExState)), scale=3.0),
    Case("lif_adex", {}, LIF_ADEX,
         of_norse(norse.LIFAdExParameters, (norse.lif_adex_feed_forward_step, norse.LIFAdExFeedForwardState),
                  (norse.lif_adex_step, norse.LIFAdExState)), scale=3.0),
    Case("lif_adex_refrac", {}, {**LIF_ADEX, **REFRACTORY},
         of_norse(norse.LIFAdExRefracParameters,
                  (lif_adex_refrac_feed_forward_step, norse.LIFAdExRefracFeedForwardState),
                  (lif_adex_refrac_step, norse.LIFAdExRefracState)), scale=3.0),
    Case("lsnn", {}, {**LIF, "tau_adapt_inv": (1.0, 100.0), "beta": (0.1, 0.5), "b0": (0.2, 0.6)},
         of_norse(norse.LSNNParameters, (norse.lsnn_feed_forward_step, norse.LSNNFeedForwardState),
                  (norse.lsnn_step, norse.LSNNState)), scale=3.0),
    Case("izhikevich", {}, IZHIKEVICH,
         of_norse(norse.IzhikevichParameters, (norse.izhikevich_feed_forward_step, norse.IzhikevichState),
                  (norse.izhikevich_recurrent_step, norse.IzhikevichRecurrentState)),
         scale=20.0, bias=60.0, surrogate="htaf(alpha=0.05,beta=5.0)"),
    Case("coba_lif", {}, COBA,
         of_norse(norse.CobaLIFParameters, (norse.coba_lif_feed_forward_step, norse.CobaLIFFeedForwardState)),
         scale=3.0, surrogate="htaf(alpha=0.05,beta=5.0)"),
    # SpikingJelly
    Case("parametric_lif", {}, {"w": (-1.0, 1.0), "v_threshold": (0.3, 0.7), "v_reset": (-0.2, 0.1), "v0": STATE},
         parametric_lif),
]  # fmt: skip


def combinations(name):
    options = NEURONS[name].options
    return [dict(zip(options, values, strict=True)) for values in product(*options.values())]


CASES = [
    replace(case, options=options, per_neuron=per_neuron)
    for case in NEURON_CASES
    for options in combinations(case.neuron)
    for per_neuron in (False, True)
]
# The options that the recurrent neurons of each library have.
RECURRENT = {
    "rleaky": {},
    "rsynaptic": {"reset_delay": True},
    "iaf": {},
    "lif": {"detach_reset": True},
    "lif_refrac": {"detach_reset": True},
    "lif_ex": {},
    "lif_adex": {},
    "lif_adex_refrac": {},
    "lsnn": {"detach_reset": True},
    "izhikevich": {},
}
RECURRENT_CASES = [
    replace(case, recurrent=True)
    for case in CASES
    if case.neuron in RECURRENT and RECURRENT[case.neuron].items() <= case.options.items()
]
