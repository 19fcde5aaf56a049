"""Small networks whose widths are measured."""

import torch
from snntorch import utils
from torch import nn

from htaf_snn import models
from htaf_snn import nn as hnn

CLASSES = 5


def batch(samples=64, features=20):
    return torch.randn(samples, features), torch.randint(CLASSES, (samples,))


def deep(depth, spec="htaf", width=48):
    return models.DeepHeavisideNet(20, [width] * depth, CLASSES, surrogate=spec)


def one_layer(spec):
    """A network whose potentials are its inputs."""
    return nn.Sequential(hnn.BinaryActivation(spec), nn.Linear(20, CLASSES))


class Stepped(nn.Module):
    """A network of snnTorch that is stepped through time, or of fused neurons over the same sequence."""

    def __init__(self, make, hidden=False):
        super().__init__()
        self.first, self.last, self.hidden = nn.Linear(20, 30), nn.Linear(30, CLASSES), hidden
        self.neurons = nn.ModuleList([make(), make()])
        with torch.no_grad():
            self.first.weight.mul_(3)
            self.last.weight.mul_(3)

    def forward(self, frames):
        one, two = self.neurons
        if isinstance(one, hnn.NeuronLayer):
            return two(self.last(one(self.first(frames))[0]))[0].mean(0)
        if self.hidden:
            utils.reset(self)
            return sum(two(self.last(one(self.first(x)))) for x in frames)
        mem, other = one.reset_mem(), two.reset_mem()
        out = []
        for x in frames:
            spikes, mem = one(self.first(x), mem)
            spikes, other = two(self.last(spikes), other)
            out.append(spikes)
        return torch.stack(out).mean(0)


def frames():
    return torch.randn(8, 64, 20), torch.randint(CLASSES, (64,))
