"""The training loop and the command, on synthetic recordings and real networks."""

import json
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from commands import run
from runs import SMALL, assert_one_error, metrics

from htaf_snn import hardening, models, register, surrogate, training
from htaf_snn import nn as hnn


@pytest.mark.parametrize(
    ("library", "surrogate", "model"),
    [
        ("snntorch", "htaf(alpha=0.5, beta=8)", "mlp"),
        ("snntorch", "htaf(learn=('alpha', 'beta'))", "mlp"),
        ("snntorch", "htaf(hardness=0.0)", "mlp"),
        ("snntorch", "snntorch.atan", "cnn"),
        ("norse", "htaf", "mlp"),
        ("norse", "norse.super(alpha=10)", "cnn"),
        ("norse", "triangle", "mlp"),
    ],
)
def test_trains_in_either_library(recordings, tmp_path, library, surrogate, model):
    out = tmp_path / "run"
    options = ["--library", library, "--surrogate", surrogate, "--model", model, "--data-root", recordings]
    hidden = [] if model == "mlp" else ["--hidden", "4"]
    shown = run("train", *SMALL, *hidden, *options, "--epochs", 6, "--out", out, "--json")
    assert shown.exit_code == 0, shown.output
    result = json.loads(shown.stdout)
    assert result["test_accuracy"] >= 0.9 and result == json.loads((out / "result.json").read_text())
    assert sorted(p.name for p in out.iterdir()) == [
        "checkpoint.safetensors",
        "config.json",
        "confusion.svg",
        "data.json",
        "learning_curves.svg",
        "metrics.jsonl",
        "result.json",
    ]
    lines = metrics(out)
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert lines[-1]["train_loss"] < lines[0]["train_loss"]
    assert all(0 <= rate <= 1 for line in lines for rate in line["spike_rate"]) and len(lines[0]["spike_rate"]) == 1


def test_deterministic_and_resumes_exactly(recordings, tmp_path):
    options = ["train", *SMALL, "--data-root", recordings]
    run(*options, "--epochs", 4, "--out", tmp_path / "whole")
    run(*options, "--epochs", 4, "--out", tmp_path / "again")
    run(*options, "--epochs", 2, "--out", tmp_path / "parts")
    with open(tmp_path / "parts" / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 2, "torn": true}\n')
    assert run("train", "--resume", "--out", tmp_path / "parts", "--epochs", 4).exit_code == 0
    for other in ("again", "parts"):
        assert metrics(tmp_path / other) == metrics(tmp_path / "whole")
        assert (tmp_path / other / training.CHECKPOINT).read_bytes() == (
            tmp_path / "whole" / training.CHECKPOINT
        ).read_bytes()
    run(*options, "--epochs", 4, "--seed", 1, "--out", tmp_path / "other")
    assert metrics(tmp_path / "other") != metrics(tmp_path / "whole")


def test_a_run_cut_off_before_its_first_checkpoint_resumes(recordings, tmp_path):
    options = [*SMALL, "--data-root", recordings, "--epochs", 1]
    run("train", *options, "--out", tmp_path / "whole")
    (tmp_path / "cut").mkdir()
    shutil.copy(tmp_path / "whole" / "config.json", tmp_path / "cut")
    assert run("train", "--resume", "--out", tmp_path / "cut").exit_code == 0
    assert metrics(tmp_path / "cut") == metrics(tmp_path / "whole")
    (tmp_path / "cut" / "data.json").unlink()
    assert_one_error(run("train", "--resume", "--out", tmp_path / "cut"), "data.json")


@pytest.mark.thorough
@pytest.mark.usefixtures("interruptible")
def test_interrupt_leaves_a_folder_that_resumes(recordings, tmp_path):
    out = tmp_path / "run"
    arguments = ["train", *SMALL, "--data-root", str(recordings), "--epochs", "5000", "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-m", "htaf_snn", *arguments], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (out.is_dir() and len(_lines(out)) >= 2):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in errors and f"--resume --out {out}" in errors
    done = len(_lines(out))
    assert not list(out.glob(".*"))
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**config, "epochs": done + 1}))
    assert run("train", "--resume", "--out", out).exit_code == 0
    assert len(_lines(out)) == done + 1


def _lines(out):
    path = out / "metrics.jsonl"
    return path.read_text().splitlines() if path.exists() else []


def test_folds_pool_everything(recordings, tmp_path):
    options = ["--data-root", recordings, "--epochs", 4, "--folds", 2, "--val-fraction", 0]
    shown = run("train", *SMALL, *options, "--out", tmp_path / "run", "--json")
    result = json.loads(shown.stdout)
    assert len(result["fold_accuracy"]) == 2
    assert result["test_accuracy"] == pytest.approx(sum(result["fold_accuracy"]) / 2)
    assert "val_loss" not in metrics(tmp_path / "run" / "fold1")[0]


def test_checkpoint_round_trip(tmp_path):
    def pair():
        model = torch.nn.Linear(3, 2)
        return model, torch.optim.Adam(model.parameters())

    model, optimizer = pair()
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    training.save_checkpoint(tmp_path / "c.safetensors", model, optimizer, 7)
    drawn = torch.rand(1)
    other, other_optimizer = pair()
    assert training.load_checkpoint(tmp_path / "c.safetensors", other, other_optimizer) == 7
    assert torch.equal(torch.rand(1), drawn)
    assert torch.equal(other.weight, model.weight)
    moments = [o.state[m.weight]["exp_avg"] for m, o in ((model, optimizer), (other, other_optimizer))]
    assert torch.equal(*moments)


def test_a_loss_that_is_not_finite_is_reported(recordings, tmp_path, monkeypatch):
    monkeypatch.setattr(training.step, "cross_entropy", lambda scores, labels, **_: scores.sum() * float("nan"))
    shown = run("train", *SMALL, "--data-root", recordings, "--out", tmp_path / "run")
    assert shown.exit_code == 1 and "error: the loss is nan in epoch 1, step 1" in shown.stderr
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        training.CHECKPOINT,
        "config.json",
        "data.json",
        "metrics.jsonl",
    ]


def test_spike_rate_is_the_mean_of_the_output():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.neurons = torch.nn.ModuleList([torch.nn.Identity()])
            self.readout = torch.nn.Linear(2, 2)

        def forward(self, x):
            return self.readout(self.neurons[0](x).mean(0))

    net = Net()
    with training.readings.SpikeRates(net) as rates:
        net(torch.ones(3, 1, 2))
        net(torch.zeros(3, 1, 2))
    assert rates.mean(rates.sums().tolist(), rates.sizes()) == [0.5]
    assert not net.neurons[0]._forward_hooks


def test_spike_rate_of_neurons_that_also_return_their_state():
    net = torch.nn.Module()
    net.neurons = [hnn.Leaky(beta=0.9)]
    with training.readings.SpikeRates(net) as rates:
        net.neurons[0](torch.full((4, 1, 1), 0.6))  # spikes 0, 1, 0, 1
    assert rates.mean(rates.sums().tolist(), rates.sizes()) == [0.5]


@pytest.mark.thorough
def test_folds_resume_where_they_were_interrupted(recordings, tmp_path, monkeypatch):
    arguments = ["train", *SMALL, "--data-root", recordings, "--epochs", "2", "--folds", "3", "--out"]
    run(*arguments, tmp_path / "whole")
    trained, train = [], training.train

    def interrupted(config, *positional, **named):
        trained.append(config.fold)
        if trained == [0, 1]:
            raise KeyboardInterrupt
        return train(config, *positional, **named)

    monkeypatch.setattr(training.runs, "train", interrupted)
    result = run(*arguments, tmp_path / "parts")
    assert result.exit_code == 130 and "--resume" in result.stderr
    result = run("train", "--resume", "--out", tmp_path / "parts")
    assert result.exit_code == 0, result.stderr
    whole, parts = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("whole", "parts"))
    assert parts["fold_accuracy"] == whole["fold_accuracy"]
    result = run("train", "--resume", "--out", tmp_path / "parts" / "fold2", "--epochs", "3")
    assert result.exit_code == 0 and len(metrics(tmp_path / "parts" / "fold2")) == 3


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_waits_for_the_file(tmp_path):
    from htaf_snn._files import replacing

    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "file.txt") as temporary:
        signal.raise_signal(signal.SIGINT)
        temporary.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]
    assert (tmp_path / "file.txt").read_text() == "whole"


def test_interrupt_before_the_training_leaves_nothing(recordings, tmp_path, monkeypatch):
    def interrupt(*positional, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr(training.runs, "make_loaders", interrupt)
    for folds in ([], ["--folds", "2"]):
        result = run("train", *SMALL, "--data-root", recordings, "--out", tmp_path / "deep" / "run", *folds)
        assert result.exit_code == 130 and "nothing was written" in result.stderr
        assert list(tmp_path.iterdir()) == []


def test_a_run_without_a_checkpoint_restarts(recordings, tmp_path):
    arguments = ["train", *SMALL, "--data-root", recordings, "--epochs", "1", "--out"]
    run(*arguments, tmp_path / "whole")
    run(*arguments, tmp_path / "early")
    for name in ("metrics.jsonl", "checkpoint.safetensors", "result.json"):
        (tmp_path / "early" / name).unlink()
    result = run("train", "--resume", "--out", tmp_path / "early")
    assert result.exit_code == 0, result.stderr
    assert metrics(tmp_path / "early") == metrics(tmp_path / "whole")


def test_a_trained_network_can_be_loaded(recordings, tmp_path):
    for model in ("mlp", "cnn"):
        out = tmp_path / model
        run("train", *SMALL, "--data-root", recordings, "--epochs", "1", "--model", model, "--out", out)
        net = training.load(out)
        test_loader = training.make_loaders(training.read_config(out))[2]
        expected = json.loads((out / "result.json").read_text())["test_accuracy"]
        assert not net.training and training.evaluate(net, test_loader)["accuracy"] == expected


@pytest.mark.parametrize("library", ["snntorch", "fused"])
def test_the_hardening_gap_is_reported(recordings, tmp_path, library):
    out = tmp_path / "run"
    arguments = ["train", *SMALL, "--data-root", recordings, "--epochs", "1", "--out", out, "--library", library]
    shown = run(*arguments, "--surrogate", "htaf(hardness=0.0)", "--anneal", "alpha", "--alpha-end", 2)
    result = json.loads((out / "result.json").read_text())
    assert f"{result['test_accuracy']:.4f}, hardening gap {result['hardening_gap']:.4f}" in shown.stdout
    assert result["hardening_gap"] == result["smooth_test_accuracy"] - result["test_accuracy"]
    net, loaders = training.load(out), training.make_loaders(training.read_config(out))
    assert hardening.is_hard(net)
    assert hardening.evaluate(net, loaders[0], loaders[2]) == (result["test_accuracy"],) * 2 + (
        0.0,
        result["test_loss"],
    )
    for neuron in hardening.surrogates(net).values():
        assert neuron.alpha == 2.0
        neuron.hardness = 0.0
    with register():
        evaluation = hardening.evaluate(net, loaders[0], loaders[2])
    assert evaluation.smooth == result["smooth_test_accuracy"] and evaluation.gap == result["hardening_gap"]


@pytest.mark.parametrize("library", ["snntorch", "norse", "fused"])
@pytest.mark.parametrize("name", surrogate.names())
def test_every_surrogate_drives_every_library(library, name):
    neuron = models.neuron(library, name)
    x = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    with register():
        neuron(x)[0].sum().backward()
    assert x.grad.isfinite().all() and x.grad.any()


@pytest.fixture
def late_readings(monkeypatch):
    """Readings as from a GPU, whose events and pinned memory are stood in for."""

    class Event:
        def record(self, stream):
            pass

        def synchronize(self):
            pass

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *shape, pin_memory=False, **options: empty(*shape, **options))
    return training.readings.Readings(True)


def test_numbers_are_read_one_step_late(late_readings):
    seen = []
    for step in range(3):
        late_readings.read(torch.tensor([float(step)]), seen.append)
        assert seen == [[float(earlier)] for earlier in range(step)]
    late_readings.finish()
    late_readings.finish()
    assert seen == [[0.0], [1.0], [2.0]]


def test_the_first_of_several_errors_is_reported(late_readings):
    def use(numbers):
        raise FloatingPointError(f"step {numbers[0]}")

    with pytest.raises(FloatingPointError, match="step 0"):
        try:
            for step in range(3):
                late_readings.read(torch.tensor([float(step)]), use)
        finally:
            late_readings.finish()
