"""Attacks on trained networks in eval mode, by the gradient of their inputs."""

import itertools

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, default_collate

from htaf_snn import hardening, models, register, training
from htaf_snn.training import Recipe, Run

STEPS = 4
SIZES = (0.02, 0.05, 0.1, 0.2)
QUICK = {"epochs": 15, "lr": 4e-3, "batch_size": 64, "val_fraction": 0.0}


def frames(samples):
    """Return frames (T, B, C, H, W) that show each image at all time steps, and labels."""
    x, labels = default_collate(samples)
    return x.expand(STEPS, *x.shape), labels


def trained(name, folder):
    """Return a network that was trained on digits and loaded, and all test data."""
    config = Run(model=name if name in training.BINARY else "relu", hidden=(64,), **QUICK)
    train, _, test = training.make_loaders(config)
    if name in training.BINARY:
        training.train(config, folder, progress=False)
        return training.load(folder), *default_collate([*test.dataset])
    torch.manual_seed(0)
    net = models.SpikingMLP(64, [64], 10, lambda: models.neuron(name))
    loader = DataLoader(train.dataset, 64, shuffle=True, collate_fn=frames)
    training.fit(net, loader, recipe=Recipe(epochs=15, lr=4e-3), out=folder, progress=False)
    untrained = models.SpikingMLP(64, [64], 10, lambda: models.neuron(name))
    return training.load(folder, untrained), *frames([*test.dataset])


def accuracy(net, x, labels):
    return training.evaluate(net, [(x, labels)])["accuracy"]


def moved(x, size, direction):
    """Return images whose pixels are changed by at most the size, and stay within [0, 1]."""
    return (x + size * direction.sign()).clamp(0, 1).detach()


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["fused", "snntorch", "norse", "bnn", "dhn", "binary-cnn"])
def test_an_attack_succeeds_more_often_the_larger_it_is(name, tmp_path):
    with register():
        net, x, labels = trained(name, tmp_path)
        assert not net.training and hardening.is_hard(net)
        (gradient,) = torch.autograd.grad(cross_entropy(net(x.requires_grad_()), labels), x)
        torch.manual_seed(0)
        clean, *attacked = (accuracy(net, moved(x, size, gradient), labels) for size in (0.0, *SIZES))
        noisy = [accuracy(net, moved(x, size, torch.randn_like(x)), labels) for size in SIZES]
    assert clean > 0.9
    assert all(larger <= smaller + 0.01 for smaller, larger in itertools.pairwise([clean, *attacked]))
    assert all(attack < noise for attack, noise in zip(attacked, noisy, strict=True))
    assert attacked[-1] < clean - 0.5
    assert clean - attacked[-1] > 4 * (clean - noisy[-1])
