"""What a recipe can ask of a training: its losses, its optimizers, and what it keeps."""

import copy
import json
from dataclasses import replace

import pytest
import torch
from runs import interrupted
from safetensors.torch import load_file
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from htaf_snn import models, plots, training
from htaf_snn import nn as hnn
from htaf_snn.configuration import Recipe
from htaf_snn.nn._batches import Batch
from htaf_snn.training.augmenting import augmented
from htaf_snn.training.step import Trainer, loss_of

STEPS, BATCH, CLASSES = 7, 6, 3
FRAMES = 3 * torch.rand(STEPS, BATCH, 5, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])
DATA = {"model": "dhn", "hidden": (8,), "batch_size": 256}


def spiking(seed=0):
    torch.manual_seed(seed)
    return models.SpikingMLP(5, [9], CLASSES, neuron=lambda: hnn.Leaky(beta=0.9))


def gradients(net, recipe, *batches):
    """The gradients of an optimizer's step, and the figures of its batches."""
    trainer = Trainer(net, recipe, lambda number, optimizer: None, None)
    trainer.begin(0, batches[0])
    figures = [trainer.add_gradients(batch)[0] for batch in batches]
    trainer.update()
    return [p.grad.clone() for p in net.parameters()], figures


def test_batches_that_are_accumulated_equal_one():
    whole, [figures] = gradients(spiking(), Recipe(), Batch(FRAMES, LABELS, None))
    parts = [Batch(FRAMES[:, a:b], LABELS[a:b], None) for a, b in ((0, 1), (1, 4), (4, 6))]
    found, _ = gradients(spiking(), Recipe(accumulate=3), *parts)
    torch.testing.assert_close(found, whole)
    assert figures[0] == pytest.approx(cross_entropy(spiking()(FRAMES), LABELS).item())


def test_accumulated_gradients_stay_of_the_order_of_one_batch():
    """In float16 larger ones overflow."""
    batch, recipe = Batch(FRAMES, LABELS, None), Recipe(accumulate=2)
    trainer = Trainer(spiking(), recipe, lambda number, optimizer: None, None)
    trainer.begin(0, batch)
    trainer.add_gradients(batch)
    once = [p.grad.clone() for p in trainer.model.parameters()]
    trainer.add_gradients(batch)
    torch.testing.assert_close([p.grad / 2 for p in trainer.model.parameters()], once)
    torch.testing.assert_close(once, gradients(spiking(), Recipe(), batch)[0])


def test_a_truncated_gradient_is_that_of_detached_states():
    net = spiking()
    expected = spiking()
    first, state = expected.stream(FRAMES[:4])
    rest, _ = expected.stream(FRAMES[4:], hnn.detached(state))
    loss = 4 / 7 * cross_entropy(first.mean(0), LABELS) + 3 / 7 * cross_entropy(rest.mean(0), LABELS)
    loss.backward()
    found, [figures] = gradients(net, Recipe(tbptt=4), Batch(FRAMES, LABELS, None))
    torch.testing.assert_close(found, [p.grad for p in expected.parameters()])
    assert figures[0].item() == pytest.approx(loss.item())
    whole, _ = gradients(spiking(), Recipe(), Batch(FRAMES, LABELS, None))
    longer, _ = gradients(spiking(), Recipe(tbptt=STEPS), Batch(FRAMES, LABELS, None))
    torch.testing.assert_close(longer, whole)
    assert not torch.allclose(found[0], whole[0])


def test_the_losses():
    scores = torch.randn(STEPS, BATCH, CLASSES, generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([7, 1, 2, 3, 4, 5])
    each = torch.stack([cross_entropy(step, LABELS, reduction="none") for step in scores])
    assert loss_of(scores, LABELS, None, Recipe(loss="tet")).item() == pytest.approx(each.mean().item())
    own = torch.stack([each[:length, i].mean() for i, length in enumerate(lengths)]).mean()
    assert loss_of(scores, LABELS, lengths, Recipe(loss="tet")).item() == pytest.approx(own.item())
    mean = torch.stack([scores[:length, i].mean(0) for i, length in enumerate(lengths)])
    found = loss_of(scores, LABELS, lengths, Recipe(label_smoothing=0.1))
    assert found.item() == pytest.approx(cross_entropy(mean, LABELS, label_smoothing=0.1).item())
    target = torch.eye(CLASSES)[LABELS]
    found = loss_of(scores.mean(0), LABELS, None, Recipe(loss="mse"))
    assert found.item() == pytest.approx((scores.mean(0) - target).square().mean().item())


def test_the_loss_of_every_time_step_trains_a_network_through_its_stream():
    net, expected = spiking(), spiking()
    found, _ = gradients(net, Recipe(loss="tet"), Batch(FRAMES, LABELS, None))
    loss_of(expected.stream(FRAMES)[0], LABELS, None, Recipe(loss="tet")).backward()
    torch.testing.assert_close(found, [p.grad for p in expected.parameters()])


class Steps(nn.Module):
    """A network of a user's own, with the scores of every time step, and without lengths."""

    def __init__(self):
        super().__init__()
        self.net = hnn.Sequential(nn.Linear(5, CLASSES), hnn.Leaky(beta=0.9))

    def forward(self, frames):
        return self.net(frames)


def test_scores_of_every_time_step_are_trained_on_and_evaluated(tmp_path):
    lengths = torch.tensor([7, 1, 2, 3, 4, 5])
    net, loader = Steps(), [(FRAMES, LABELS, lengths)]
    mean = torch.stack([net(FRAMES)[:length, i].mean(0) for i, length in enumerate(lengths)])
    assert training.evaluate(net, loader)["loss"] == pytest.approx(cross_entropy(mean, LABELS).item())
    data = DataLoader(TensorDataset(FRAMES.transpose(0, 1), LABELS), BATCH, collate_fn=frames_first)
    for loss in ("cross-entropy", "tet"):
        (tmp_path / loss).mkdir()
        lines = training.fit(net, data, recipe=Recipe(epochs=2, loss=loss), out=tmp_path / loss, progress=False)
        assert len(lines) == 2
    with pytest.raises(TypeError, match=r"^model: expected one with stream\(frames, state\) for tbptt"):
        gradients(net, Recipe(tbptt=2), Batch(FRAMES, LABELS, None))
    flat = nn.Sequential(nn.Flatten(), nn.Linear(5, CLASSES))
    with pytest.raises(ValueError, match=r"^model: expected the scores of every time step .* for loss='tet'"):
        gradients(flat, Recipe(loss="tet"), Batch(FRAMES[0], LABELS, None))
    with pytest.raises(ValueError, match=r"^tbptt: expected sequences of one length"):
        gradients(spiking(), Recipe(tbptt=2), Batch(FRAMES, LABELS, lengths))


def frames_first(samples):
    frames, labels = zip(*samples, strict=True)
    return torch.stack(frames, 1), torch.stack(labels)


def test_gradients_are_clipped_together():
    free, _ = gradients(spiking(), Recipe(), Batch(FRAMES, LABELS, None))
    norm = torch.stack([g.norm() for g in free]).norm()
    clipped, _ = gradients(spiking(), Recipe(clip_gradient=norm.item() / 2), Batch(FRAMES, LABELS, None))
    torch.testing.assert_close(clipped, [g / 2 for g in free])
    untouched, _ = gradients(spiking(), Recipe(clip_gradient=2 * norm.item()), Batch(FRAMES, LABELS, None))
    torch.testing.assert_close(untouched, free)


SMALL_DEEP = {"hidden": None, "width": 4, "n_time_bins": 3, "batch_size": 32, "train_fraction": 0.1}
RUNS = {
    "sgd": {"optimizer": "sgd", "weight_decay": 1e-3, "lr": 0.05},
    "adamw": {"optimizer": "adamw", "weight_decay": 0.1, "clip_gradient": 1.0},
    "ema": {"ema": 0.9},
    "fp16": {"precision": "fp16"},
    "augment": {"augment": ("flip", "shift", "cutout")},
    "accumulate": {"accumulate": 2, "schedule": "cosine", "warmup": 0.3, "label_smoothing": 0.1},
    "best": {"early_stopping": 2, "ema": 0.5},
    # Their weights are in channels-last order, which fused optimizers follow in memory.
    "plif-net": {"optimizer": "sgd"} | SMALL_DEEP | {"model": "plif-net"},
    "sew-resnet18": SMALL_DEEP | {"model": "sew-resnet18"},
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", RUNS)
def test_a_run_resumes_exactly(tmp_path, name):
    config = training.Run(**{**DATA, "epochs": 4, "lr": 0.01, **RUNS[name]})
    whole = training.train(config, tmp_path / "whole", progress=False)
    with interrupted(2), pytest.raises(KeyboardInterrupt):
        training.train(config, tmp_path / "parts", progress=False)
    parts = training.train(config, tmp_path / "parts", resume=True, progress=False)
    assert {**parts, "seconds": 0, "out": ""} == {**whole, "seconds": 0, "out": ""}
    for file in ("checkpoint.safetensors", "network.safetensors"):
        if (tmp_path / "whole" / file).is_file():
            one, other = (load_file(tmp_path / part / file) for part in ("whole", "parts"))
            assert all(torch.equal(value, other[key]) for key, value in one.items())
    net, loader = training.load(tmp_path / "parts"), training.make_loaders(config)[2]
    assert training.evaluate(net, loader)["accuracy"] == whole["test_accuracy"]


def test_a_training_whose_steps_float16_leaves_out_is_an_error(tmp_path):
    net = nn.Linear(5, CLASSES)
    net.weight.register_hook(lambda gradient: gradient * torch.inf)
    loader = DataLoader(TensorDataset(FRAMES[0], LABELS), 2)
    with pytest.raises(
        FloatingPointError, match=r"^precision: expected bf16 or fp32, as nearly every gradient .* in epoch 1"
    ):
        training.fit(net, loader, recipe=Recipe(precision="fp16"), out=tmp_path, progress=False)


def test_a_network_whose_modules_have_two_names_is_stored(tmp_path):
    net = nn.Sequential(nn.Linear(5, 5))
    net.alias = net[0]
    loader = DataLoader(TensorDataset(FRAMES[0], LABELS), 2)
    training.fit(net, loader, recipe=Recipe(epochs=1), out=tmp_path, progress=False)
    other = copy.deepcopy(net)
    nn.init.zeros_(other[0].weight)
    assert torch.equal(training.load(tmp_path, other)[0].weight, net[0].weight)


def test_a_training_that_failed_in_its_first_epoch_can_be_begun_again(tmp_path):
    net, labels = nn.Linear(5, CLASSES), LABELS.float()
    options = {"recipe": Recipe(epochs=1), "out": tmp_path, "progress": False}
    with pytest.raises(ValueError, match="labels"):
        training.fit(net, DataLoader(TensorDataset(FRAMES[0], labels), 2), **options)
    assert len(training.fit(net, DataLoader(TensorDataset(FRAMES[0], LABELS), 2), **options)) == 1
    with pytest.raises(ValueError, match="expected a folder without a run"):
        training.fit(net, DataLoader(TensorDataset(FRAMES[0], LABELS), 2), **options)


def test_averaged_weights_are_those_that_are_tested(tmp_path):
    torch.manual_seed(0)
    net = nn.Linear(5, CLASSES)
    seen = []
    loader = DataLoader(TensorDataset(FRAMES[0], LABELS), 2)
    training.fit(
        net,
        loader,
        recipe=Recipe(epochs=2, ema=0.5, lr=0.1),
        out=tmp_path,
        progress=False,
        before_step=lambda number, optimizer: seen.append(net.weight.detach().clone()),
    )
    # After the first step the average is the weight itself, as torch defines it.
    last = load_file(tmp_path / "checkpoint.safetensors")["model.weight"]
    average = seen[1]
    for weight in (*seen[2:], last):
        average = 0.5 * average + 0.5 * weight
    torch.testing.assert_close(net.weight.detach(), average)
    assert not torch.allclose(last, average)


def test_a_training_stops_without_progress_and_keeps_its_best_network(tmp_path, capsys):
    config = training.Run(**DATA, epochs=60, early_stopping=3, lr=0.05)
    result = training.train(config, tmp_path, progress=False)
    accuracies = [json.loads(line)["val_accuracy"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    best = accuracies.index(max(accuracies))
    assert len(accuracies) == result["epochs"] == best + 1 + 3 < 60
    _, val, _ = training.make_loaders(config)
    assert training.evaluate(training.load(tmp_path), val)["accuracy"] == max(accuracies)
    again = training.train(config, tmp_path, resume=True)
    assert {**again, "seconds": 0} == {**result, "seconds": 0}
    assert again["kept_epoch"] == best + 1
    assert f"stopped after epoch {best + 4}" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"^early_stopping: expected None without validation data"):
        replace(config, val_fraction=0)
    with pytest.raises(ValueError, match=r"^val_loader: expected validation data for early_stopping"):
        training.fit(nn.Linear(5, 3), DataLoader(TensorDataset(FRAMES[0], LABELS)), None, config, out=tmp_path / "x")


def test_samples_are_changed_alike_at_all_time_steps():
    torch.manual_seed(0)
    x = torch.rand(1, 40, 2, 8, 8).expand(5, 40, 2, 8, 8)
    for names in (("flip",), ("shift",), ("cutout",), ("flip", "shift", "cutout")):
        y = augmented(Batch(x, torch.zeros(40).long(), None), names).x
        assert y.shape == x.shape and torch.equal(y, y[:1].expand_as(y))
        changed = [not torch.equal(y[0, i], x[0, i]) for i in range(40)]
        assert 5 < sum(changed) <= 40
    flipped = augmented(Batch(x, torch.zeros(40).long(), None), ("flip",)).x
    assert all(torch.equal(b, a) or torch.equal(b, a.flip(-1)) for a, b in zip(x[0], flipped[0], strict=True))
    with pytest.raises(ValueError, match=r"^augment: expected frames \(T, B, C, H, W\) or images"):
        augmented(Batch(FRAMES, LABELS, None), ("flip",))


SOFT = {"surrogate": "htaf(hardness=0.5)", "epochs": 3}


@pytest.mark.thorough
@pytest.mark.parametrize(
    "settings",
    [
        SOFT,
        SOFT | {"keep": "best", "lr": 0.05},
        SOFT | {"early_stopping": 1, "epochs": 20, "lr": 0.05},
        {"model": "bnn", "weight_surrogate": "magnitude_aware", "lr": 0.3, "epochs": 2},
    ],
    ids=str,
)
def test_a_finished_run_that_is_resumed_has_the_same_figures(tmp_path, settings):
    config = training.Run(**DATA | {"batch_size": 64} | settings)
    first = training.train(config, tmp_path, progress=False)
    again = training.train(config, tmp_path, resume=True, progress=False)
    assert {**again, "seconds": 0} == {**first, "seconds": 0}
    loader = training.make_loaders(config)[2]
    found = training.evaluate(training.load(tmp_path), loader)
    assert (found["accuracy"], found["loss"]) == (first["test_accuracy"], pytest.approx(first["test_loss"], rel=1e-6))


def test_a_run_that_was_killed_while_it_began_can_be_resumed(tmp_path):
    config = training.Run(**DATA, epochs=1)
    whole = training.train(config, tmp_path / "whole", progress=False)
    for written in (("data.json", "config.json"), ("data.json", "config.json", "checkpoint.safetensors")):
        parts = tmp_path / str(len(written))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(training.loop, "_write_metrics", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                training.train(config, parts, progress=False)
        for path in parts.iterdir():
            if path.name not in written:
                path.unlink()
        again = training.train(config, parts, resume=True, progress=False)
        assert {**again, "seconds": 0, "out": ""} == {**whole, "seconds": 0, "out": ""}


def test_curves_name_a_loss_that_validation_does_not_have(tmp_path):
    training.train(training.Run(**DATA, epochs=1, loss="mse"), tmp_path, progress=False)
    assert [line.get_label() for line in plots.learning_curves(tmp_path).axes[0].lines] == ["train, mse", "val"]


@pytest.mark.thorough
def test_longer_folds_begin_without_the_old_result(tmp_path):
    config = training.Run(hidden=(4,), n_time_bins=2, epochs=1, folds=2, val_fraction=0.0, batch_size=256)
    training.train_folds(config, tmp_path, progress=False)
    with interrupted(1), pytest.raises(KeyboardInterrupt):
        training.train_folds(replace(config, epochs=3), tmp_path, resume=True, progress=False)
    assert not (tmp_path / "result.json").exists()


def test_the_network_of_another_continuation_is_not_taken(tmp_path):
    net, loader = nn.Linear(5, CLASSES), DataLoader(TensorDataset(FRAMES[0], LABELS), 2)
    recipe = Recipe(epochs=2, keep="best")
    training.fit(net, loader, loader, recipe, out=tmp_path, progress=False)
    kept = tmp_path / "network.safetensors"
    epoch = training.load_checkpoint(kept, nn.Linear(5, CLASSES))
    training.save_checkpoint(kept, net, None, epoch + 1)
    with pytest.raises(ValueError, match=rf"expected the network of epoch {epoch}, got that of epoch {epoch + 1}"):
        training.fit(net, loader, loader, recipe, out=tmp_path, progress=False, resume=True)
    training.fit(net, loader, loader, Recipe(epochs=3, keep="last"), out=tmp_path, progress=False, resume=True)
    assert not kept.exists()
    assert torch.equal(training.load(tmp_path, nn.Linear(5, CLASSES)).weight, net.weight)


def test_an_empty_shard_is_not_changed():
    empty = Batch(torch.zeros(3, 0, 2, 8, 8), torch.zeros(0).long(), None)
    assert augmented(empty, ("flip",)) is empty


def test_padding_is_refused_by_batchnorm_whatever_the_loss():
    net = models.SpikingMLP(5, [9], CLASSES, neuron=lambda: hnn.Leaky(beta=0.9), norm="batch")
    with pytest.raises(ValueError, match=r"^lengths: expected none for a network with BatchNorm"):
        gradients(net, Recipe(loss="tet"), Batch(FRAMES, LABELS, torch.tensor([7, 1, 2, 3, 4, 5])))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"loss": "tet"}, "loss: 'tet' has no effect on the model dhn, only on spiking ones"),
        ({"loss": "mse", "label_smoothing": 0.1}, "label_smoothing: 0.1 has no effect with loss='mse'"),
        ({"model": "mlp", "hidden": (8,), "loss": "tet", "compiled": True}, "compiled: expected False with loss='tet'"),
        ({"augment": ("flip", "flip")}, "augment: expected none, one or more of flip, shift, cutout"),
        ({"warmup": 0.5}, "warmup: 0.5 has no effect with schedule='constant', only with cosine"),
        ({"keep": "best", "val_fraction": 0}, "keep: expected 'last' without validation data"),
        ({"model": "mlp", "hidden": (8,), "tbptt": 10}, "tbptt: 10 has no effect with n_time_bins=10, only below"),
        ({"ema": 1.0}, r"ema: expected None or a number in \(0, 1\), got 1.0"),
        ({"optimizer": "adma"}, "optimizer: expected one of adam, adamw, sgd, got 'adma'; did you mean adam?"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        training.Run(**DATA | wrong)
