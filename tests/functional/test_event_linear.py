"""The linear map of frames of events: equal to the dense one, in values and gradients."""

import pytest
import torch
from torch.nn import functional

from htaf_snn import functional as F
from htaf_snn import models
from htaf_snn import nn as hnn
from htaf_snn.functional import events
from htaf_snn.kernels.event_linear import numba_cpu, reference

pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")


@pytest.fixture(autouse=True)
def any_size(monkeypatch):
    """Small inputs take the kernels, too."""
    monkeypatch.setattr(events, "_FEW", 0)


def frames(rows, features, fill=0.05, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(1, 4, (rows, features), generator=generator).to(dtype)
    return values * (torch.rand(rows, features, generator=generator) < fill)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("rows", "features", "outputs"), [(1, 1, 1), (7, 33, 5), (800, 2312, 256), (3, 100, 1)])
@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_values_and_gradients_equal_the_dense_ones(rows, features, outputs, dtype, backend):
    x = frames(rows, features, dtype=dtype)
    weight = torch.randn(outputs, features, dtype=dtype, requires_grad=True)
    bias = torch.randn(outputs, dtype=dtype, requires_grad=True)
    grad = torch.randn(rows, outputs, dtype=dtype)
    expected = functional.linear(x.double(), weight.double(), bias.double())
    wanted = torch.autograd.grad(expected, (weight, bias), grad.double())
    for given in (x, x.to_sparse_csr()):
        out = F.event_linear(given, weight, bias, backend=backend)
        assert out.dtype == dtype
        tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 1e-11, "atol": 1e-11}
        torch.testing.assert_close(out.double(), expected.detach(), **tolerance)
        for name, got, right in zip(
            ("weight", "bias"), torch.autograd.grad(out, (weight, bias), grad), wanted, strict=True
        ):
            message = f"{name}: {{}}".format
            torch.testing.assert_close(got.double(), right.double(), msg=message, **tolerance)


@pytest.mark.parametrize("shape", [(0, 5), (4, 0), (0, 0)])
def test_nothing(shape):
    x, weight = torch.zeros(shape), torch.randn(3, shape[1], requires_grad=True)
    out = F.event_linear(x, weight, backend="numba")
    assert torch.equal(out, torch.zeros(shape[0], 3))
    out.sum().backward()
    assert torch.equal(weight.grad, torch.zeros(3, shape[1]))


def test_extreme_values_and_nan_are_kept():
    x = torch.zeros(4, 50)
    x[0, 3], x[1, 7], x[2, 9] = float("nan"), float("inf"), -1e38
    weight = torch.ones(2, 50)
    out = F.event_linear(x, weight, backend="numba")
    assert out[0].isnan().all()
    assert (out[1] == float("inf")).all()
    assert (out[2] == -1e38).all()
    assert (out[3] == 0).all()


def test_views_and_any_number_of_dimensions():
    x, weight = frames(60, 40).view(5, 12, 40), torch.randn(6, 40)
    expected = functional.linear(x, weight)
    torch.testing.assert_close(F.event_linear(x, weight), expected)
    torch.testing.assert_close(F.event_linear(x.transpose(0, 1), weight), expected.transpose(0, 1))
    torch.testing.assert_close(F.event_linear(x[::2], weight.clone().T.contiguous().T), expected[::2])
    assert F.event_linear(x[0, 0], weight).shape == (6,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("rows", "features"), [(7, 33), (5, 64), (1, 1), (3, 0), (0, 8)])  # odd, and whole words
@pytest.mark.parametrize("fill", [0.0, 0.05, 1.0])
def test_compression_is_that_of_the_reference(rows, features, fill, dtype):
    x = frames(rows, features, fill, dtype)
    x[x == 3] = -0.0
    x[x == 2] = float("nan")
    off_by_one = torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape)  # words not at multiples of eight bytes
    for given in (x, x.T.contiguous().T, off_by_one):
        for got, expected in zip(numba_cpu.compress(given), reference.compress(given), strict=True):
            torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)


def test_the_number_of_threads_changes_nothing():
    x, weight = frames(800, 500), torch.randn(64, 500, requires_grad=True)
    results = []
    threads = torch.get_num_threads()
    for number in (1, 2, 3):
        torch.set_num_threads(number)
        out = F.event_linear(x, weight)
        results.append((out.detach(), *torch.autograd.grad(out.square().sum(), weight)))
    torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_second_derivatives():
    x, weight = frames(6, 9, 0.4, torch.float64), torch.randn(3, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w: F.event_linear(x.to_sparse_csr(), w), weight)
    assert torch.autograd.gradgradcheck(lambda w: F.event_linear(x.to_sparse_csr(), w).pow(2), weight)


@pytest.mark.parametrize("bias", [None, torch.ones(5)])
@pytest.mark.parametrize("learned", [True, False])
def test_rows_have_the_gradient_of_dense_frames(bias, learned):
    x, weight = frames(6, 9), torch.randn(5, 9, requires_grad=learned)
    gradients = []
    for given in (x.clone(), x.to_sparse_csr()):
        (F.event_linear(given.requires_grad_(), weight, bias) + 1).square().sum().backward()
        gradients.append(given.grad)
    assert gradients[0].ne(0).all()
    torch.testing.assert_close(gradients[1], gradients[0])


def test_dense_inputs_and_those_that_need_gradients_are_dense(monkeypatch):
    monkeypatch.setattr(events, "event_product", lambda *arguments: pytest.fail("sparse"))
    weight = torch.randn(3, 9)
    F.event_linear(torch.rand(6, 9), weight)
    x = frames(6, 9).requires_grad_()
    F.event_linear(x, weight).sum().backward()
    torch.testing.assert_close(x.grad, weight.sum(0).expand(6, 9))
    torch.func.vmap(F.event_linear)(frames(6, 9)[:, None], weight.expand(6, 3, 9))
    with torch.autocast("cpu", torch.bfloat16):
        assert F.event_linear(frames(6, 9), weight).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("x", "weight", "error", "message"),
    [
        (torch.zeros(3, 4), torch.zeros(2, 5), ValueError, "^x: expected a last size of"),
        (torch.zeros(3, 4).double(), torch.zeros(2, 4), TypeError, "^x: expected torch.float32, as the weight, got"),
        (torch.zeros(3, 4).int(), torch.zeros(2, 4), TypeError, "^x: expected a floating-point tensor"),
    ],
)
def test_arguments_are_checked(x, weight, error, message):
    with pytest.raises(error, match=message):
        F.event_linear(x, weight)
    with pytest.raises(ValueError, match=r"^backend: expected one of"):
        F.event_linear(torch.zeros(3, 4), torch.zeros(2, 4), backend="fast")


def test_a_network_learns_as_with_a_plain_layer():
    torch.manual_seed(0)
    net = models.SpikingMLP(200, [16, 16], 4, neuron=lambda: models.neuron("fused", "htaf"))
    first = net.layers[0][1]
    assert isinstance(first, hnn.EventLinear)
    plain = torch.nn.Linear(200, 16)
    plain.load_state_dict(first.state_dict())
    x = frames(5 * 8, 200).view(5, 8, 200)
    net(x).sum().backward()
    gradient = first.weight.grad.clone()
    net.zero_grad()
    net.layers[0][1] = plain
    net(x).sum().backward()
    torch.testing.assert_close(plain.weight.grad, gradient)


def test_forward_mode_sees_rows(any_size):
    import torch.autograd.forward_ad as forward

    x, weight, tangent = frames(6, 40), torch.randn(3, 40), torch.randn(3, 40)
    with forward.dual_level():
        made = forward.make_dual(weight, tangent)
        for given in (x, x.to_sparse_csr()):
            out = forward.unpack_dual(F.event_linear(given, made)).tangent
            torch.testing.assert_close(out, x @ tangent.T)


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_rows_train_under_autocast(backend):
    x, weight = frames(6, 40), torch.randn(3, 40, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        dense = F.event_linear(x, weight, backend=backend)
        sparse = F.event_linear(x.to_sparse_csr(), weight, backend=backend)
    assert dense.dtype == sparse.dtype == torch.bfloat16
    sparse.float().sum().backward()
    torch.testing.assert_close(weight.grad, x.sum(0).expand(3, -1), rtol=2e-2, atol=2e-2)


def test_traces_and_fakes_pass():
    from torch import fx
    from torch._subclasses.fake_tensor import FakeTensorMode

    x, layer = frames(6, 40), hnn.EventLinear(40, 3)
    traced = fx.symbolic_trace(torch.nn.Sequential(layer))
    torch.testing.assert_close(traced(x), layer(x))
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert layer(torch.zeros(4000, 40)).shape == (4000, 3)


def test_arguments_that_do_not_fit_are_refused():
    x, weight = frames(6, 40), torch.randn(3, 40)
    with pytest.raises(ValueError, match=r"^bias: expected torch\.float32 of shape \(3,\)"):
        F.event_linear(x, weight, torch.zeros(3, dtype=torch.float64))
    with pytest.raises(TypeError, match=r"^x: expected torch\.float32, as the weight"):
        F.event_linear(x.double(), weight)
    with pytest.raises(ValueError, match=r"^backend: 'triton' cannot compute a linear map"):
        F.event_linear(x, weight, backend="triton")
