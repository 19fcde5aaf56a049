"""snnTorch: HTAF as `spike_grad` in all neurons; `register`, with hard resets at any hardness."""

import pytest
import snntorch as snn
import torch

from htaf_snn import HTAF, surrogate

ALPHA, BETA = 0.8, 5.0


class Reference(torch.autograd.Function):
    """HTAF written out again: the step forward, alpha beta h (1 - h) (1 - tanh^2) backward."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.where(x > 0, 1.0, 0.0).to(x)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        t = torch.tanh(ALPHA * x)
        h = 1 / (1 + torch.exp(-BETA * t))
        return grad * ALPHA * BETA * h * (1 - h) * (1 - t * t)


def lstm(neuron, shape):
    """An LSTM neuron with float64 states: those that it makes itself are float32."""
    neuron.syn = neuron.mem = torch.zeros(shape, dtype=torch.float64)
    return neuron


# name: (neuron from its common arguments, input shape with time first)
STEPPED = {
    "Leaky": (lambda **o: snn.Leaky(0.9, learn_beta=True, **o), (4, 2, 3)),
    "Lapicque": (lambda **o: snn.Lapicque(0.5, threshold=0.3, learn_threshold=True, **o), (4, 2, 3)),
    "Alpha": (lambda **o: snn.Alpha(0.9, 0.8, threshold=0.3, learn_threshold=True, **o), (4, 2, 3)),
    "Synaptic": (lambda **o: snn.Synaptic(0.9, 0.8, learn_alpha=True, **o), (4, 2, 3)),
    "RLeaky": (lambda **o: snn.RLeaky(0.9, linear_features=3, **o), (4, 2, 3)),
    "RSynaptic": (lambda **o: snn.RSynaptic(0.9, 0.8, linear_features=3, **o), (4, 2, 3)),
    "SLSTM": (
        lambda **o: lstm(snn.SLSTM(3, 3, threshold=0.1, reset_mechanism="subtract", **o), (2, 3)),
        (4, 2, 3),
    ),
    "SConv2dLSTM": (
        lambda **o: lstm(snn.SConv2dLSTM(1, 3, 3, threshold=0.1, reset_mechanism="zero", **o), (2, 3, 5, 5)),
        (3, 2, 1, 5, 5),
    ),
    "DeltaLeaky": (lambda **o: snn.DeltaLeaky(1.0, beta=0.9, learn_beta=True, **o), (4, 2, 3)),
}
WHOLE = {
    "StateLeaky": (lambda **o: snn.StateLeaky(0.9, 3, learn_threshold=True, **o), (4, 2, 3)),
    "LinearLeaky": (lambda **o: snn.LinearLeaky(0.9, 3, 4, **o), (4, 2, 3)),
    "LeakyParallel": (lambda **o: snn.LeakyParallel(3, 4, beta=0.9, threshold=0.3, **o), (4, 2, 3)),
}


def gradients(name, spike_grad):
    """Spikes of a float64 neuron on seeded input, and by name the gradients of a weighted sum of them."""
    build, shape = {**STEPPED, **WHOLE}[name]
    torch.manual_seed(0)
    neuron = build(spike_grad=spike_grad, **({"init_hidden": True} if name in STEPPED else {})).double()
    x = (2 * torch.randn(shape, dtype=torch.float64)).requires_grad_()
    outputs = [neuron(step) for step in x] if name in STEPPED else [neuron(x)]
    spikes = torch.stack([out[0] if isinstance(out, tuple) else out for out in outputs])
    (spikes * torch.linspace(0.5, 1.5, spikes.numel()).view_as(spikes)).sum().backward()
    return spikes.detach(), {"x": x.grad, **{key: p.grad for key, p in neuron.named_parameters()}}


@pytest.mark.parametrize("name", [*STEPPED, *WHOLE])
def test_gradients_equal_a_reference_written_out(name):
    spikes, grads = gradients(name, HTAF(ALPHA, BETA))
    expected_spikes, expected = gradients(name, Reference.apply)
    assert spikes.dtype == torch.float64 and set(spikes.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(spikes, expected_spikes)
    assert grads.keys() == expected.keys() and grads["x"].abs().max() > 0
    torch.testing.assert_close(grads, expected, rtol=1e-10, atol=1e-12)


def leaky(x, beta, threshold, reset, delay):
    v, trace = torch.zeros_like(x[0]), []
    for current in x:
        late = (v > threshold).to(x)
        v = beta * (v * (1 - late) if reset == "zero" else v) + current
        v = v - late * threshold if reset == "subtract" else v
        s = Reference.apply(v - threshold)
        trace.append(s)
        if not delay:
            v = v - (s - late) * (v if reset == "zero" else threshold)
    return torch.stack(trace)


@pytest.mark.parametrize("delay", [True, False])
@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_leaky_equals_dynamics_written_out(reset, delay):
    torch.manual_seed(1)
    x = torch.randn(6, 2, 3, dtype=torch.float64) + 0.4
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    options = {"reset_mechanism": reset, "reset_delay": delay}
    neuron = snn.Leaky(0.9, 0.7, spike_grad=HTAF(ALPHA, BETA), init_hidden=True, **options).double()
    spikes = torch.stack([neuron(step) for step in ours])
    expected = leaky(theirs, neuron.beta, neuron.threshold, reset, delay)
    spikes.sum().backward()
    expected.sum().backward()
    assert torch.equal(spikes, expected) and 0 < spikes.mean() < 1
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=1e-14)


def test_synaptic_equals_dynamics_written_out():
    torch.manual_seed(2)
    x = torch.randn(6, 2, 3, dtype=torch.float64)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    neuron = snn.Synaptic(0.5, 0.75, spike_grad=HTAF(ALPHA, BETA), init_hidden=True).double()
    spikes = torch.stack([neuron(step) for step in ours])
    i = v = torch.zeros_like(x[0])
    expected = []
    for current in theirs:
        late = (v > 1).to(x)
        i = 0.5 * i + current
        v = 0.75 * v + i - late
        expected.append(Reference.apply(v - 1))
    expected = torch.stack(expected)
    spikes.sum().backward()
    expected.sum().backward()
    assert torch.equal(spikes, expected) and 0 < spikes.mean() < 1
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=1e-14)


def test_rleaky_equals_dynamics_written_out():
    torch.manual_seed(3)
    x = torch.randn(6, 2, 3, dtype=torch.float64) + 0.3
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    neuron = snn.RLeaky(0.75, linear_features=3, spike_grad=HTAF(ALPHA, BETA), init_hidden=True).double()
    weight, bias = (p.detach().clone().requires_grad_() for p in neuron.recurrent.parameters())
    spikes = torch.stack([neuron(step) for step in ours])
    s = v = torch.zeros_like(x[0])
    expected = []
    for current in theirs:
        late = (v > 1).to(x)
        v = 0.75 * v + current + s @ weight.T + bias - late
        s = Reference.apply(v - 1)
        expected.append(s)
    spikes.sum().backward()
    torch.stack(expected).sum().backward()
    assert torch.equal(spikes, torch.stack(expected)) and 0 < spikes.mean() < 1
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(neuron.recurrent.weight.grad, weight.grad, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", surrogate.names())
def test_every_surrogate_trains(name):
    layer = torch.nn.Linear(3, 3)
    neuron = snn.Leaky(0.9, threshold=0.1, spike_grad=surrogate.resolve(name), init_hidden=True)
    torch.stack([neuron(layer(torch.rand(2, 3))) for _ in range(3)]).sum().backward()
    assert layer.weight.grad.isfinite().all() and layer.weight.grad.abs().sum() > 0


def test_learnable_parameters_belong_to_the_neuron_and_receive_gradients():
    neuron = snn.Leaky(0.9, spike_grad=HTAF(learn=("alpha", "beta")), init_hidden=True)
    neuron(torch.rand(2, 3)).sum().backward()
    assert {"spike_grad.log_alpha", "spike_grad.log_beta"} <= neuron.state_dict().keys()
    assert neuron.spike_grad.log_alpha.grad.abs() > 0


# -- below hardness 1 --

# V = 0 and no learned recurrence: the membrane potential then depends on past spikes through the reset alone.
SILENT = {"all_to_all": False, "V": 0.0, "learn_recurrent": False}
RESETTING = {
    "Leaky": lambda **o: snn.Leaky(0.9, **o),
    "Lapicque": lambda **o: snn.Lapicque(0.5, threshold=0.3, **o),
    "Alpha": lambda **o: snn.Alpha(0.9, 0.8, **o),
    "Synaptic": lambda **o: snn.Synaptic(0.9, 0.8, **o),
    "RLeaky": lambda **o: snn.RLeaky(0.9, **SILENT, **o),
    "RSynaptic": lambda **o: snn.RSynaptic(0.9, 0.8, **SILENT, **o),
    "SLSTM": lambda **o: snn.SLSTM(3, 3, threshold=0.05, **o),
    "SConv2dLSTM": lambda **o: snn.SConv2dLSTM(3, 3, 3, threshold=0.05, **o),
}
IMMEDIATE = ("Leaky", "Synaptic", "RLeaky")  # RSynaptic(reset_delay=False) raises in snnTorch 1.0.0
CASES = [
    (name, {"reset_mechanism": reset, **delay})
    for name in RESETTING
    for reset in ("subtract", "zero")
    for delay in ([{}, {"reset_delay": False}] if name in IMMEDIATE else [{}])
]


def trajectory(name, hardness, **options):
    """Spikes and membrane potentials over time, and the gradient of the potentials at the input."""
    torch.manual_seed(4)
    neuron = RESETTING[name](spike_grad=HTAF(hardness=hardness), init_hidden=True, output=True, **options)
    x = (2 * torch.randn((6, 2, 3, 4, 4) if name == "SConv2dLSTM" else (6, 2, 3))).requires_grad_()
    steps = [neuron(step) for step in x]
    spikes, potentials = torch.stack([s[0] for s in steps]), torch.stack([s[-1] for s in steps])
    (grad,) = torch.autograd.grad(potentials.square().sum(), x)
    return spikes.detach(), potentials.detach(), grad


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("hardness", [0.0, 0.3])
@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_below_hardness_1_the_membrane_moves_as_at_1(name, options, hardness):
    spikes, hard, hard_grad = trajectory(name, 1.0, **options)
    values, soft, soft_grad = trajectory(name, hardness, **options)
    _, unreset, _ = trajectory(name, 1.0, **{**options, "reset_mechanism": "none"})
    assert not torch.equal(hard, unreset)
    assert torch.equal(soft, hard)
    torch.testing.assert_close(soft_grad, hard_grad, rtol=1e-6, atol=1e-7)
    smooth = (values - hardness * spikes) / (1 - hardness)
    assert torch.equal(smooth > 0.5, spikes > 0) and ((smooth > 0.02) & (smooth < 0.98)).any()


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("hardness", [0.0, 0.3])
@pytest.mark.parametrize("quantise", [False, lambda v: torch.round(v * 4) / 4])
@pytest.mark.parametrize("inhibition", [False, True])
@pytest.mark.filterwarnings("ignore:Inhibition is an unstable feature")
def test_immediate_reset_with_graded_spikes_inhibition_and_quantisation(inhibition, quantise, hardness):
    options = {"reset_delay": False, "inhibition": inhibition, "state_quant": quantise}
    runs = [trajectory("Leaky", value, graded_spikes_factor=2.0, **options) for value in (1.0, hardness)]
    assert torch.equal(runs[0][1], runs[1][1])


@pytest.mark.usefixtures("registered")
def test_immediate_reset_returns_the_smooth_spikes_alone_without_output():
    neuron = snn.Leaky(0.9, spike_grad=HTAF(hardness=0.0), init_hidden=True, reset_delay=False)
    values = neuron(torch.full((1, 1), 1.25))
    assert values.item() == pytest.approx(torch.sigmoid(4 * torch.tanh(torch.tensor(0.25))).item())
    assert neuron.mem.item() == 0.25 and neuron.spike_grad.hardness == 0 and neuron.reset_delay is False


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("inhibition", [False, True])
@pytest.mark.filterwarnings("ignore:Inhibition is an unstable feature")
def test_immediate_reset_leaves_the_hardness_of_a_shared_surrogate_alone(inhibition, monkeypatch):
    shared, hardnesses = HTAF(hardness=0.25), []
    evaluate = shared._at
    monkeypatch.setattr(shared, "_at", lambda *args: hardnesses.append(shared.hardness) or evaluate(*args))
    neuron = snn.Leaky(0.9, spike_grad=shared, init_hidden=True, reset_delay=False, inhibition=inhibition)
    neuron(torch.full((2, 3), 1.25))
    assert hardnesses == [0.25, 0.25]


@pytest.mark.usefixtures("registered")
def test_a_failing_forward_leaves_the_neuron_as_it_was():
    neuron = snn.Leaky(0.9, spike_grad=HTAF(hardness=0.0), init_hidden=True, reset_delay=False)
    with pytest.raises(TypeError, match="init_hidden"):
        neuron(torch.zeros(1, 1), torch.zeros(1, 1))
    assert neuron.reset_delay is False


@pytest.mark.usefixtures("registered")
def test_the_hardness_may_change_at_any_time_step():
    neuron = snn.Leaky(1.0, spike_grad=HTAF(), init_hidden=True, output=True)
    for hardness in (1.0, 0.0, 1.0, 0.3, 0.0):
        neuron.spike_grad.hardness = hardness
        spikes, potential = neuron(torch.full((1, 1), 1.5))
        assert (spikes.item() == 1) == (hardness == 1)
    assert potential.item() == 5 * 1.5 - 4


@pytest.mark.usefixtures("registered")
def test_other_smooth_callables_keep_the_reset_that_snntorch_gives_them():
    neuron = snn.Leaky(1.0, spike_grad=torch.sigmoid, init_hidden=True, output=True)
    _, first = neuron(torch.full((1, 1), 1.5))
    _, second = neuron(torch.zeros(1, 1))
    assert torch.equal(first, 1.5 - torch.sigmoid(torch.full((1, 1), -1.0)))
    assert torch.equal(second, first - torch.sigmoid(first - 1))
