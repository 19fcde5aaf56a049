"""What each parameter and option of the neurons is, for their reference."""

from __future__ import annotations

from collections.abc import Mapping

from .base import Neuron

_WORDS = {
    "alpha": "decay of the synaptic current per time step, clamped to [0, 1]",
    "alpha.alpha": "decay of the excitatory current per time step, clamped to [0, 1], greater than beta",
    "alpha.beta": "decay of the inhibitory current per time step, clamped to [0, 1]",
    "beta": "decay of the potential per time step, clamped to [0, 1]",
    "state_leaky.beta": "sets the decay of the potential per time step, exp(beta - 1)",
    "lsnn.beta": "rise of the threshold at a spike",
    "threshold": "potential above which there is a spike",
    "v_th": "potential above which there is a spike",
    "v_thresh": "potential above which there is a spike, in mV",
    "v_threshold": "potential above which there is a spike",
    "lsnn.v_th": "threshold without spikes",
    "v_leak": "resting potential",
    "v_rest": "resting potential",
    "izhikevich.v_rest": "potential before the first time step, without gradient",
    "u_rest": "recovery variable before the first time step, without gradient",
    "v_reset": "potential after a spike",
    "tau_syn_inv": "inverse time constant of the current in 1/s",
    "tau_mem_inv": "inverse time constant of the potential in 1/s",
    "tau_ada_inv": "inverse time constant of the adaptation in 1/s",
    "tau_adapt_inv": "inverse time constant of the threshold in 1/s",
    "tau_syn_exc_inv": "inverse time constant of the excitatory conductance",
    "tau_syn_inh_inv": "inverse time constant of the inhibitory conductance",
    "dt": "time step in s, positive",
    "delta_T": "sharpness of the exponential upswing, in the unit of the potential",
    "adaptation_current": "coupling of the adaptation to the potential",
    "adaptation_spike": "rise of the adaptation at a spike",
    "rho_reset": "time steps for which a neuron is refractory after a spike",
    "R": "resistance",
    "C": "capacitance",
    "time_step": "time step, in the unit of R C",
    "w": "sets the time constant in time steps, 1 / sigmoid(w)",
    "c_m_inv": "inverse capacitance of the membrane",
    "g_l": "conductance of the leak",
    "e_rev_E": "reversal potential of excitation, in mV",
    "e_rev_I": "reversal potential of inhibition, in mV",
    "a": "rate of recovery",
    "b": "coupling of the recovery to the potential",
    "c": "potential after a spike, in mV",
    "d": "rise of the recovery at a spike, in mV",
    "sq": "coefficient of the square of the potential",
    "mn": "coefficient of the potential",
    "bias": "constant term",
    "tau_inv": "how much faster than in the equations of 2003 the time passes, in 1/s",
    "reset": "what a spike does to the potential",
    "reset_delay": "whether a spike resets the potential in the next time step, or in its own",
    "detach_reset": "whether to pass no gradient through the reset",
    "decay_input": "whether the input decays too",
}


def described(neuron: Neuron, defaults: Mapping[str, object]) -> dict[str, str]:
    """Describe each parameter and option of a neuron, with its default or the one in `defaults`."""
    texts = {}
    for name, default in neuron.parameters.items():
        text = _WORDS.get(f"{neuron.name}.{name}", _WORDS.get(name, "a parameter"))
        texts[name] = f"{text}; {'required' if default is None else f'{default:.6g} by default'}."
    for name, values in neuron.options.items():
        text = _WORDS.get(name, "an option")
        texts[name] = f"{text}: {' or '.join(map(repr, values))}; {defaults.get(name, values[0])!r} by default."
    return texts
