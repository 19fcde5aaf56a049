"""Batches of loaders and scores of networks: used correctly, or refused with the remedy."""

import copy
import re
from functools import partial

import numpy as np
import pytest
import torch
from commands import run
from runs import SMALL, metrics
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, Sampler, SubsetRandomSampler, TensorDataset

import neuromorphic_datasets as nd
from htaf_snn import deploy, hardening, models, training
from htaf_snn import nn as hnn
from htaf_snn.configuration import Recipe
from htaf_snn.nn._batches import mean_over_time

CLASSES, BATCH, STEPS = 3, 4, 6
LABELS = torch.tensor([0, 1, 2, 1])
LINEAR = nn.Sequential(nn.Flatten(), nn.Linear(4, CLASSES))
IMAGES = torch.rand(BATCH, 1, 2, 2)
FRAMES = torch.rand(STEPS, BATCH, 5)


def loader(x, labels, dim=0):
    """One batch; frames (T, B, …) are a data set along dimension 1."""
    data = TensorDataset(x.movedim(dim, 0), labels)
    return DataLoader(data, BATCH, collate_fn=lambda some: (torch.stack([x for x, _ in some], dim), *_labels(some)))


def _labels(some):
    return [torch.stack([label for _, label in some])]


def uses(model, x, labels, tmp_path, dim=0):
    """Yield a call of every function that runs a network over a loader."""
    yield lambda: training.evaluate(model, loader(x, labels, dim))
    yield lambda: hardening.evaluate(model, loader(x, labels, dim), loader(x, labels, dim))
    yield lambda: training.fit(model, loader(x, labels, dim), out=tmp_path, recipe=Recipe(epochs=1), progress=False)


class Ends(nn.Module):
    """A network over frames with a given last operation."""

    def __init__(self, end):
        super().__init__()
        self.body, self.end = hnn.Sequential(nn.Linear(5, CLASSES), hnn.Leaky(beta=0.9)), end

    def forward(self, frames):
        return self.end(self.body(frames))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            LABELS[:, None],
            r"labels: expected class numbers, int64 \(B,\), got torch.int64 \(4, 1\); write labels.squeeze",
        ),
        (LABELS.float(), r"got torch.float32 \(4,\); write labels.long\(\)"),
        (LABELS[:, None].float(), r"write labels.squeeze\(1\).long\(\)"),
        (torch.eye(3)[LABELS], r"got torch.float32 \(4, 3\); write labels.argmax\(1\)"),
        (torch.eye(3)[LABELS].long(), r"write labels.argmax\(1\)"),
        (LABELS > 1, r"got torch.bool \(4,\); write labels.long\(\)"),
        (LABELS + 1, "labels: expected 0 to 2, got 1 to 3; the network has 3 classes, counted from 0"),
        (LABELS - 1, "labels: expected 0 to 2, got -1 to 1"),
        (torch.where(LABELS == 1, -100, LABELS), "labels: expected 0 to 2, got -100 to 2"),  # torch leaves these out
    ],
)
def test_labels(tmp_path, labels, message):
    for use in uses(LINEAR, IMAGES, labels, tmp_path):
        with pytest.raises(ValueError, match=message):
            use()


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.int16])
def test_labels_of_any_integers(tmp_path, dtype):
    results = [training.evaluate(LINEAR, loader(IMAGES, labels)) for labels in (LABELS, LABELS.to(dtype))]
    assert results[0] == results[1]
    training.fit(LINEAR, loader(IMAGES, LABELS.to(dtype)), out=tmp_path, recipe=Recipe(epochs=1), progress=False)


def test_images_of_eight_bits(tmp_path):
    grey = (IMAGES * 255).byte()
    for use in uses(LINEAR, grey, LABELS, tmp_path):
        with pytest.raises(TypeError, match=r"^inputs: .* torch.uint8 .* \(4, 1, 2, 2\); .* inputs.float\(\) / 255"):
            use()
    frames = (torch.rand(STEPS, BATCH, 2, 8, 8) * 9).byte()
    spiking = models.SpikingCNN((2, 8, 8), [2], 2, neuron=nn.Identity), models.SpikingMLP(128, [2], 2, nn.Identity)
    of_images, of_events = r"x.float\(\) \(8-bit images: x.float\(\) / 255\)$", r"frames.float\(\)$"
    for net, x, remedy in [
        (models.ReLUNet(4, [2], 2), grey, of_images),
        (models.DeepHeavisideNet(4, [2], 2), grey, of_images),
        *((net, frames, of_events) for net in spiking),
    ]:
        with pytest.raises(TypeError, match=r"torch.uint8 .*; write " + remedy):
            net(x)


@pytest.mark.parametrize(
    ("network", "dtype", "remedy"),
    [
        (torch.float32, torch.float64, "float()"),
        (torch.float32, torch.float16, "float()"),
        (torch.float64, torch.float32, "double()"),
    ],
)
def test_inputs_of_another_type_than_the_parameters(tmp_path, network, dtype, remedy):
    expected = rf"^inputs: expected {network}, as the network's parameters, got a {dtype} tensor of shape \({{}}\); "
    expected += f"write inputs.{re.escape(remedy)}$"
    convolution = nn.Sequential(nn.Conv2d(1, 3, 2), nn.Flatten())
    for net in (LINEAR, convolution, models.BinaryCNN((1, 2, 2), [2], 3), models.DeepHeavisideNet(4, [2], 3)):
        for use in uses(copy.deepcopy(net).to(network), IMAGES.to(dtype), LABELS, tmp_path):
            with pytest.raises(TypeError, match=expected.format("4, 1, 2, 2")):
                use()
    streamed = hnn.Sequential(nn.Linear(5, 3), hnn.Leaky(beta=0.5)).to(network)
    for use in uses(models.SpikingMLP(5, [2], 3, nn.Identity).to(network), FRAMES.to(dtype), LABELS, tmp_path, dim=1):
        with pytest.raises(TypeError, match=expected.format("6, 4, 5")):
            use()
    frames = loader(FRAMES.to(dtype), LABELS, dim=1)
    with pytest.raises(TypeError, match=expected.format("2, 4, 5")):
        training.fit(streamed, frames, out=tmp_path, recipe=Recipe(epochs=1, tbptt=2), progress=False)


def test_networks_in_float64(tmp_path):
    net, data = copy.deepcopy(LINEAR).double(), loader(IMAGES.double(), LABELS)
    training.fit(net, data, data, out=tmp_path, recipe=Recipe(epochs=1), progress=False)


def test_errors_of_a_network_stay_its_own(tmp_path):
    mixed = nn.Sequential(nn.Flatten(), nn.Linear(4, CLASSES).double(), nn.Linear(CLASSES, CLASSES))
    for use in uses(mixed, IMAGES.double(), LABELS, tmp_path):
        with pytest.raises(RuntimeError, match="dtype"):
            use()


@pytest.mark.parametrize(
    ("end", "error", "message"),
    [
        (lambda x: x[1:], ValueError, r"or \(T, 4, n_classes\), for inputs \(6, 4, 5\), got \(5, 4, 3\)"),
        (hnn.Leaky(beta=0.5), TypeError, r"got a tuple of 2, .* return the mean over time, spikes.mean\(0\)"),
        (lambda x: x.mean(1), ValueError, r"for inputs \(6, 4, 5\), got \(6, 3\)"),
        (lambda x: x.mean((0, 2)), ValueError, r"got \(4,\)"),
        (lambda x: x.mean(0).argmax(1), TypeError, r"got torch.int64"),
        (lambda x: None, TypeError, "got NoneType"),
    ],
)
def test_networks_that_return_no_class_scores(tmp_path, end, error, message):
    for use in uses(Ends(end), FRAMES, LABELS, tmp_path, dim=1):
        with pytest.raises(error, match=f"^model: expected class scores .*{message}"):
            use()


def test_frames_with_the_batch_first(tmp_path):
    net = Ends(lambda x: x.mean(0))
    training.fit(net, loader(FRAMES, LABELS, dim=1), out=tmp_path, recipe=Recipe(epochs=1), progress=False)
    with pytest.raises(
        ValueError, match=r"got \(6, 3\); if it takes frames \(T, B, …\), write frames.transpose\(0, 1\)"
    ):
        training.evaluate(net, [(FRAMES.transpose(0, 1), LABELS)])


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_a_loaded_network_knows_its_frames(recordings, tmp_path, model):
    run("train", *SMALL, "--data-root", recordings, "--epochs", 1, "--model", model, "--out", tmp_path / "a")
    net = training.load(tmp_path / "a")
    assert net(torch.rand(3, 5, 2, 34, 34)).shape == (5, 10)
    for shape in ((5, 3, 2, 34, 34), (3, 5, 34, 34, 2), (3, 2, 34, 34), (3, 5, 2, 33, 34), (3,)):
        with pytest.raises(ValueError, match=r"^frames: expected \(T, B, C, H, W\) = \(T, B, 2, 34, 34\), got"):
            net(torch.rand(shape))
    for shape in ((4, 5, 2, 34, 34), (3, 3, 2, 34, 34), (9, 1, 2, 34, 34)):
        assert net(torch.rand(shape)).shape == (shape[1], 10)
    net.frame_shape = None
    assert net(torch.rand(5, 3, 2, 34, 34)).shape == (3, 10)


def test_a_loaded_network_knows_its_images(tmp_path):
    config = training.Run(model="bnn", hidden=(4,), epochs=1, batch_size=256)
    training.train(config, tmp_path, progress=False)
    net = training.load(tmp_path)
    assert net(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    for shape in ((2, 8, 8, 1), (2, 1, 4, 16), (1, 8, 8)):
        with pytest.raises(ValueError, match=r"^x: expected images \(B, 1, 8, 8\), got"):
            net(torch.rand(shape))


def test_padded_steps_do_not_count():
    torch.manual_seed(0)
    net = models.SpikingMLP(5, [7, 7], CLASSES, neuron=lambda: hnn.Sequential(hnn.Leaky(beta=0.9)))
    frames, lengths = 4 * torch.rand(STEPS, BATCH, 5), torch.tensor([6, 2, 0, 3])
    scores = net(frames, lengths)
    for number, length in enumerate(lengths.tolist()):
        alone = net(frames[:length, number : number + 1]) if length else net.readout(torch.zeros(1, 7))
        torch.testing.assert_close(scores[number : number + 1], alone)
    with training.readings.SpikeRates(net) as rates:
        rates.batch = training.readings.Batch(frames, LABELS, lengths)
        net(frames, lengths)
    with training.readings.SpikeRates(net) as separate:
        for number, length in enumerate(lengths.tolist()):
            net(frames[:length, number : number + 1], None) if length else None
    found, expected = (one.mean(one.sums().tolist(), one.sizes()) for one in (rates, separate))
    assert found == pytest.approx(expected)
    for wrong in (lengths[:3], lengths.float(), lengths + 1, lengths - 1):
        with pytest.raises(ValueError, match=r"^lengths: expected"):
            net(frames, wrong)


def test_recordings_of_any_length_are_trained_on(recordings, tmp_path):
    train, val, test = nd.loaders("nmnist", root=recordings, time_window=60_000, batch_size=8, val_fraction=0.2)
    assert len(next(iter(train))) == 3
    torch.manual_seed(0)
    net = models.SpikingMLP(2 * 34 * 34, [12], 2, neuron=lambda: hnn.Sequential(hnn.Leaky(beta=0.9)))
    lines = training.fit(net, train, val, out=tmp_path, recipe=Recipe(epochs=4, lr=0.01), progress=False)
    assert lines[-1]["train_loss"] < lines[0]["train_loss"] and training.evaluate(net, test)["accuracy"] > 0.8
    whole = training.evaluate(net, test)
    apart = [
        training.evaluate(net, [(x[: lengths[i], i : i + 1], labels[i : i + 1])])["loss"]
        for x, labels, lengths in test
        for i in range(len(labels))
    ]
    assert whole["loss"] == pytest.approx(np.mean(apart), rel=1e-5)


def test_a_network_without_lengths_is_refused(tmp_path):
    batch = [(FRAMES, LABELS, torch.tensor([6, 2, 1, 3]))]
    for net in (Ends(lambda x: x.mean(0)), nn.Sequential(nn.Flatten(), nn.Linear(20, 3)), hnn.Leaky(beta=0.9)):
        with pytest.raises(TypeError, match=r"^model: expected forward\(frames, lengths\) .* n_time_bins instead of"):
            training.evaluate(_with_weights(net), batch)
    for wrong in ((FRAMES,), (FRAMES, LABELS, LABELS, LABELS), {"x": FRAMES}, FRAMES):
        with pytest.raises(TypeError, match=r"^loader: expected batches \(inputs, labels\)"):
            training.evaluate(LINEAR, [wrong])


def _with_weights(net):
    net.register_parameter("weights", nn.Parameter(torch.zeros(1)))
    return net


def test_rates_of_two_levels_are_shares_of_the_upper_one(tmp_path):
    config = training.Run(model="bnn", hidden=(16,), epochs=1, batch_size=256)
    training.train(config, tmp_path, progress=False)
    assert 0.2 < metrics(tmp_path)[0]["spike_rate"][0] < 0.8
    net = nn.Module()
    net.neurons = [hnn.BinaryActivation("htaf")]
    with training.readings.SpikeRates(net) as rates:
        net.neurons[0](torch.tensor([-1.0, -2.0, -3.0, 1.0]))
    assert rates.mean(rates.sums().tolist(), rates.sizes()) == [0.25]


def test_batchnorm_skips_no_full_batch():
    data = TensorDataset(torch.rand(9, 3), torch.zeros(9).long())
    for drop, steps in ((True, 2), (False, 2)):
        assert training.steps_in_epoch(nn.BatchNorm1d(3), DataLoader(data, 4, drop_last=drop)) == steps


def test_statistics_stay_without_data_to_measure_them():
    net = nn.Sequential(hnn.BinaryActivation(), nn.BatchNorm1d(3))
    net[1].running_mean.fill_(5.0)
    with pytest.raises(ValueError, match=r"^loader: expected a batch of two samples or more"):
        hardening.recalibrate(net, [(torch.rand(1, 3), LABELS[:1])])
    assert (net[1].running_mean == 5).all()


def test_a_fold_belongs_to_folds(tmp_path):
    for wrong in ({"fold": 1}, {"fold": 3, "folds": 3}, {"fold": -1, "folds": 3}, {"fold": True, "folds": 3}):
        with pytest.raises(ValueError, match=r"^fold: expected (a fold of 3|None without|an integer or)"):
            training.Run(**wrong)
    with pytest.raises(ValueError, match=r"^fold: expected None, as all folds are trained, got 1"):
        training.train_folds(training.Run(folds=2, fold=1), tmp_path / "run")


class Pairs(Sampler):
    """Custom batches: a single sample between pairs."""

    def __iter__(self):
        return iter([[0, 1], [2], [3, 4]])

    def __len__(self):
        return 3


def own_loaders(data):
    yield DataLoader(data, 4, sampler=SubsetRandomSampler(range(8))), [4, 4]
    yield DataLoader(data, 4, sampler=SubsetRandomSampler(range(5))), [4]
    yield DataLoader(data, batch_sampler=Pairs()), [2, 2]
    yield DataLoader([(data[:3]), (data[3:9])], batch_size=None), [3, 6]


def test_batchnorm_sees_every_sample_of_any_sampler(tmp_path):
    """9 samples in batches of 4 leave one over, 8 do not."""
    for number, (batches, sizes) in enumerate(own_loaders(TensorDataset(torch.rand(9, 3), torch.zeros(9).long()))):
        net, seen = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), []
        net[1].register_forward_pre_hook(lambda module, args, seen=seen: seen.append(len(args[0])))
        (tmp_path / str(number)).mkdir()
        training.fit(net, batches, out=tmp_path / str(number), recipe=Recipe(epochs=1), progress=False)
        assert seen == sizes


def test_a_loader_without_a_length_is_refused(tmp_path):
    class Stream(IterableDataset):
        def __iter__(self):
            return iter([(torch.rand(3), 0)] * 4)

    for net in (nn.Linear(3, 2), nn.BatchNorm1d(3)):
        with pytest.raises(TypeError, match=r"^train_loader: expected one with a length, .* a __len__"):
            training.fit(net, DataLoader(Stream(), 2), out=tmp_path, recipe=Recipe(epochs=1), progress=False)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_scores_that_are_not_finite_have_no_accuracy(value):
    batch = [(torch.full((4, 2), value), torch.zeros(4).long())]
    for measure in (training.evaluate, partial(hardening.evaluate, train_loader=batch)):
        with pytest.raises(FloatingPointError, match="NaN"):
            measure(nn.Linear(2, 2), loader=batch)


def test_a_network_without_parameters_is_on_the_cpu():
    net = models.BinaryMLP(4, [8], CLASSES).eval()
    expected = training.evaluate(net, [(IMAGES, LABELS)])
    assert training.evaluate(deploy.pack(net), [(IMAGES, LABELS)])["accuracy"] == expected["accuracy"]
    assert training.evaluate(nn.Identity(), [(torch.eye(3), torch.arange(3))])["accuracy"] == 1.0


def test_a_network_may_convert_bytes_itself(tmp_path):
    class Bytes(nn.Sequential):
        def forward(self, x):
            return super().forward(x.float() / 255)

    for x in ((IMAGES * 255).byte(), IMAGES > 0.5):
        for use in uses(Bytes(nn.Flatten(), nn.Linear(4, CLASSES)), x, LABELS, tmp_path / str(x.dtype)):
            (tmp_path / str(x.dtype)).mkdir(exist_ok=True)
            use()


def test_other_errors_are_not_blamed_on_bytes(tmp_path):
    class Full(nn.Linear):
        def forward(self, x):
            raise torch.OutOfMemoryError("tried to allocate 20 GiB")

    for use in uses(Full(4, CLASSES), (IMAGES * 255).byte(), LABELS, tmp_path):
        with pytest.raises(torch.OutOfMemoryError, match="20 GiB"):
            use()


def test_lengths_out_of_range_have_no_mean():
    """A CPU refuses them; on a GPU, to avoid a synchronisation, the scores are NaN."""
    x, lengths = torch.ones(STEPS, BATCH, 2, 3), torch.tensor([STEPS, STEPS + 1, 0, -1])
    mean = mean_over_time(x, lengths)
    assert mean[::2].tolist() == torch.tensor([1.0, 0.0])[:, None, None].expand(2, 2, 3).tolist()
    assert mean[1::2].isnan().all()


def test_a_batch_of_inputs_alone_is_named():
    with pytest.raises(TypeError, match=r"^loader: expected batches \(inputs, labels\) .* got 1 items"):
        hardening.recalibrate(nn.BatchNorm1d(2), [(torch.rand(3, 2),)])
