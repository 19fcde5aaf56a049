"""Adam, fused where memory and values are in the same order, and resumed exactly in any order."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from htaf_snn import training
from htaf_snn.configuration import Recipe
from htaf_snn.training.step import optimizer_of


def channels_last():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(64, 2)).to(memory_format=torch.channels_last)


def transposed():
    net = nn.Sequential(nn.Flatten(), nn.Linear(108, 2))
    net[1].weight = nn.Parameter(net[1].weight.detach().T.contiguous().T)
    return net


def with_gaps():
    net = nn.Sequential(nn.Flatten(), nn.Linear(108, 2))
    net[1].weight = nn.Parameter((torch.randn(2, 200) / 10)[:, :108])
    return net


def loader():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 3, 6, 6, generator=generator)
    return DataLoader(TensorDataset(x, (x.mean((1, 2, 3)) > 0).long()), batch_size=16)


def trained(make, folder, *epochs, optimizer="adam"):
    torch.manual_seed(0)
    net = make()
    folder.mkdir()
    for number, until in enumerate(epochs):
        training.fit(
            net,
            loader(),
            out=folder,
            recipe=Recipe(epochs=until, lr=0.01, optimizer=optimizer),
            progress=False,
            resume=number > 0,
        )
    return [parameter.detach().clone() for parameter in net.parameters()]


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("make", [channels_last, transposed, with_gaps])
def test_training_does_not_depend_on_strides(make, optimizer, tmp_path):
    def contiguous():
        net = make()
        for module in net.modules():
            for name, parameter in [*module.named_parameters(recurse=False)]:
                setattr(module, name, nn.Parameter(parameter.detach().clone(memory_format=torch.contiguous_format)))
        return net

    runs = {
        "straight": trained(make, tmp_path / "straight", 4, optimizer=optimizer),
        "resumed": trained(make, tmp_path / "resumed", 2, 4, optimizer=optimizer),
        "contiguous": trained(contiguous, tmp_path / "contiguous", 4, optimizer=optimizer),
    }
    for one, other, plain in zip(*runs.values(), strict=True):
        assert torch.equal(one, other)
        torch.testing.assert_close(one, plain)


def test_adam_is_fused_where_it_can_be():
    plain, turned = nn.Parameter(torch.zeros(3, 2)), nn.Parameter(torch.zeros(3, 2).T)
    whole = nn.Parameter(torch.zeros(2, dtype=torch.complex64))
    last = nn.Parameter(torch.zeros(2, 3, 4, 5).contiguous(memory_format=torch.channels_last))
    nets = [nn.ParameterList(parts) for parts in ([plain, last], [plain, turned], [whole])]
    assert [optimizer_of(net, Recipe()).defaults["fused"] for net in nets] == [True, False, False]


def test_sgd_survives_first_steps_that_float16_leaves_out(tmp_path):
    """A fused one would go on with momenta that were never written."""
    generator = torch.Generator().manual_seed(0)
    x = 30 * torch.randn(64, 200, generator=generator)
    loader = DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), 16)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(200, 300), nn.ReLU(), nn.Linear(300, 2))
    recipe = Recipe(epochs=4, optimizer="sgd", precision="fp16", lr=1e-5)
    assert not optimizer_of(net, recipe).defaults["fused"]
    losses = [line["train_loss"] for line in training.fit(net, loader, recipe=recipe, out=tmp_path, progress=False)]
    assert losses[-1] < losses[0] < 10
