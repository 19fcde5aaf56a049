"""`Sequential.stream`: a sequence in parts."""

import pytest
import torch
from torch import nn

from htaf_snn import nn as hnn

STEPS, BATCH = 12, 6


def randn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def with_hook(module):
    module.register_forward_hook(lambda *_: None)
    return module


def exact(net):
    """Round the weights so that sums of them are exact, in whatever order matrix products add."""
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Linear):
                module.weight.copy_((module.weight * 64).round() / 64)
                module.bias.copy_((module.bias * 64).round() / 64)
    return net


def streamed_net():
    torch.manual_seed(0)
    inner = hnn.Sequential(nn.Linear(10, 12), hnn.LIF(v_th=0.2), hnn.TimeDistributed(nn.Linear(12, 8)))
    plain = nn.Sequential(nn.Linear(8, 10), nn.Sequential(hnn.Leaky(0.7, learn_beta=True), nn.Identity()))
    recurrent = hnn.RLeaky(0.8, linear_features=10)
    return exact(hnn.Sequential(nn.Flatten(), nn.Linear(20, 10), hnn.Synaptic(0.6, 0.7), inner, plain, recurrent))


@pytest.mark.parametrize("cuts", [(1,), (5,), (11,), (3, 4, 9), tuple(range(1, 12))])
def test_a_stream_in_parts_equals_the_whole(cuts):
    net, x = streamed_net(), (8 * randn(STEPS, BATCH, 2, 10)).round() / 4
    state, outputs = None, []
    for part in x.tensor_split(cuts):
        output, state = net.stream(part, state)
        outputs.append(output)
    whole, last = net.stream(x)
    assert torch.equal(torch.cat(outputs), whole) and torch.equal(whole, net(x)) and 0 < whole.mean() < 1
    flat, expected = list(tensors(state)), list(tensors(last))
    assert len(flat) == 7 and all(map(torch.equal, flat, expected))
    assert [type(entry).__name__ for entry in state] == [
        *("NoneType", "NoneType", "SynapticState", "list", "list", type(state[5]).__name__)
    ]
    assert state[3][0] is None and type(state[3][1]).__name__ == "LIFState" and state[3][2] is None
    assert isinstance(state[4][1][0], torch.Tensor)


def tensors(state):
    if isinstance(state, torch.Tensor):
        yield state
    for entry in state if isinstance(state, (list, tuple)) else ():
        yield from tensors(entry)


def test_gradients_flow_from_part_to_part_until_detached():
    net, x = streamed_net(), 2 * randn(STEPS, BATCH, 2, 10)
    x.requires_grad_()
    _, state = net.stream(x[:6])
    output, _ = net.stream(x[6:], state)
    (whole,) = torch.autograd.grad(net(x)[6:].sum(), x)
    (parts,) = torch.autograd.grad(output.sum(), x, retain_graph=True)
    torch.testing.assert_close(parts, whole)
    assert whole[:6].any()
    cut = hnn.detached(state)
    assert all(map(torch.equal, tensors(cut), tensors(state)))
    assert not any(value.requires_grad for value in tensors(cut))
    assert [type(entry) for entry in cut] == [type(entry) for entry in state]
    (truncated,) = torch.autograd.grad(net.stream(x[6:], cut)[0].sum(), x)
    assert not truncated[:6].any() and truncated[6:].any()


class Block(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x + self.inner(x)


@pytest.mark.parametrize(
    ("layer", "where"),
    [
        (lambda: Block(hnn.Sequential(hnn.Leaky(0.9))), r"layer '1' \(Block\)"),
        (lambda: nn.Sequential(Block(hnn.Sequential(hnn.Leaky(0.9)))), r"layer '1\.0' \(Block\)"),
        (lambda: with_hook(hnn.Sequential(hnn.Leaky(0.9))), r"layer '1' \(Sequential\)"),
    ],
)
def test_modules_that_lose_the_state_cannot_stream(layer, where):
    net, x = hnn.Sequential(nn.Flatten(), layer()), randn(STEPS, BATCH, 3)
    assert net(x).shape == x.shape
    with pytest.raises(TypeError, match=rf"^{where}: expected a chain without hooks around neurons that stream, got a"):
        net.stream(x)


def test_a_block_without_neurons_streams():
    net, x = hnn.Sequential(Block(hnn.TimeDistributed(nn.Flatten())), hnn.Leaky(0.9)), randn(STEPS, BATCH, 3)
    output, state = net.stream(x)
    assert torch.equal(output, net(x)) and state[0] is None


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ([None], "state: expected a list of 3 for the chain, as stream returns it, got a list of 1"),
        (torch.zeros(2), "state: expected a list of 3 for the chain, .*, got a torch.float32 tensor"),
        ([None, None, [None, None]], "state: expected a list of 1 for layer '2', .*, got a list of 2"),
        ([torch.zeros(BATCH, 3), None, None], r"state: expected None for layer '0' \(Flatten\), got a torch"),
        ([None, torch.zeros(1, 3), None], r"state: expected v to be a tensor of shape \(6, 3\)"),
    ],
)
def test_states_of_another_form_are_refused(state, message):
    net = hnn.Sequential(nn.Flatten(), hnn.Leaky(0.9), hnn.Sequential(hnn.Leaky(0.9)))
    with pytest.raises(ValueError, match=message):
        net.stream(randn(STEPS, BATCH, 3), state)


def test_a_layer_that_occurs_twice_runs_twice():
    class Double(nn.Module):
        def forward(self, x):
            return 2 * x

    double = Double()
    net = hnn.Sequential(double, nn.Identity(), double, hnn.Leaky(0.9))
    assert net(torch.full((1, 1, 1), 0.3)) == 1
