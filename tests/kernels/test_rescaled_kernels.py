"""Rescaled surrogates in the kernels of neurons, beside plain torch."""

import pytest
import torch
from devices import DEVICES

from htaf_snn import functional, surrogate
from htaf_snn.kernels.neuron import fused
from htaf_snn.surrogate import HTAF, Foreign, Formula, Rescaled


def leaky(rescaled, x, backend):
    """Return spikes, the last potentials and the gradient of a weighted sum of both."""
    x = x.to(DEVICES[backend]).requires_grad_()
    spikes, v = functional.leaky(x, beta=0.9, surrogate=rescaled, backend=backend)
    weights = torch.arange(x.shape[-1], device=x.device)
    (grad,) = torch.autograd.grad((spikes * weights).sum() + v.sum(), x)
    return spikes.detach().cpu(), v.detach().cpu(), grad.cpu()


# numpy, which Triton's interpreter computes with, warns of overflows in branches that are not taken.
@pytest.mark.filterwarnings("ignore:(overflow|invalid value|divide by zero) encountered:RuntimeWarning")
@pytest.mark.parametrize("hardness", [1.0, 0.3])
@pytest.mark.parametrize("name", surrogate.names())
@pytest.mark.parametrize("backend", ["numba", "triton"])
def test_kernels_equal_plain_torch(backend, name, hardness):
    rescaled = Rescaled(name, stretch=0.7, gain=1.3)
    rescaled.function.hardness = hardness
    x = torch.randn(6, 2, 65, generator=torch.Generator().manual_seed(0))
    if name == "straight_through" and hardness != 1:
        x = x.clamp(-0.5, 0.5)  # its smooth step, the identity, lets potentials grow
    assert fused.is_in_kernel(rescaled)
    expected, found = leaky(rescaled, x, "torch"), leaky(rescaled, x, backend)
    for ours, theirs, what in zip(found, expected, ("spikes", "v", "x"), strict=True):
        scale = theirs.abs().max().item()
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * scale, msg=lambda text, w=what: f"{w}: {text}")


def test_a_rescaled_surrogate_is_rescaled_again():
    once, twice = (
        Rescaled("htaf", stretch=0.5, gain=3.0),
        Rescaled(Rescaled("htaf", stretch=2.0, gain=1.5), stretch=0.25, gain=2.0),
    )
    x = torch.randn(6, 2, 65, generator=torch.Generator().manual_seed(0))
    assert fused.is_in_kernel(twice)
    for ours, theirs in zip(leaky(twice, x, "numba"), leaky(once, x, "torch"), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


class Other(Rescaled):
    def forward(self, x):
        return super().forward(2 * x)


@pytest.mark.parametrize("rescaled", [Rescaled(Foreign(surrogate.resolve("snntorch.atan"))), Other("htaf")])
def test_what_kernels_cannot_know_stays_outside(rescaled):
    assert rescaled.in_kernels() is None and not fused.is_in_kernel(rescaled)


class Steeper(HTAF):
    """One whose gradient is ten times that of its formula."""

    def forward(self, x):
        y = super().forward(x)
        return y.detach() + 10 * (y - y.detach())


def hooked():
    function = HTAF()
    function.register_forward_hook(lambda module, args, y: y.detach() + 10 * (y - y.detach()))
    return function


@pytest.mark.parametrize("function", [Steeper, hooked])
def test_what_a_surrogate_does_besides_its_formula_is_kept(function):
    x = torch.randn(6, 2, 65, generator=torch.Generator().manual_seed(0))
    expected, found = (leaky(Rescaled(function(), stretch=0.5), x, backend) for backend in ("torch", "numba"))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert found[2].abs().max() > 5 * leaky(Rescaled("htaf", stretch=0.5), x, "torch")[2].abs().max() > 0


def test_a_formula_registered_again_does_not_take_over():
    def made(height):
        def primitive(x, width):
            return 0.5 + x / (2.0 * (width + abs(x)))

        def derivative(x, width):
            return 3.0 * width / (width + abs(x)) / (width + abs(x))

        def other(x, width):
            return 1.0 * width / (width + abs(x)) / (width + abs(x))

        formula = Formula("soft_step", primitive, derivative if height == 3 else other)
        return surrogate.register(
            type(
                "SoftStep", (surrogate.Surrogate,), {"width": 0.5, "__annotations__": {"width": float}}, formula=formula
            )
        )

    x = torch.full((1, 1, 1), 1.0, requires_grad=True)
    first = made(3)
    (before, _) = functional.leaky(x, beta=0.5, surrogate=Rescaled(first()), backend="numba")
    second = made(1)
    functional.leaky(x, beta=0.5, surrogate=Rescaled(second()), backend="numba")
    assert torch.autograd.grad(before.sum(), x)[0].item() == pytest.approx(6.0)
    assert Rescaled(first()).in_kernels() is None and Rescaled(second()).in_kernels() is not None


def test_the_formula_is_that_of_the_surrogate_rescaled():
    formula, numbers = Rescaled("triangle", stretch=2.0, gain=3.0).in_kernels()
    assert set(numbers) == {"hardness", *formula.parameters} and formula.parameters[-2:] == ("_stretch", "_gain")
    x, own = torch.tensor([-0.3, 0.0, 0.2]), surrogate.resolve("triangle").formula
    values = [numbers[name] for name in own.parameters]
    assert torch.equal(formula.primitive(x, *values, 2.0, 3.0), own.primitive(2 * x, *values))
    assert torch.equal(formula.derivative(x, *values, 2.0, 3.0), 6 * own.derivative(2 * x, *values))
