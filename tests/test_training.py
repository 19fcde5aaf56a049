"""The training loop and the command, on synthetic recordings and real networks."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from commands import run
from safetensors.torch import load_file

from htaf_snn import hardening, models, register, surrogate, training, unregister
from htaf_snn import nn as hnn
from htaf_snn.training import Run

SMALL = ["--dataset", "nmnist", "--hidden", "12", "--n-time-bins", "3", "--batch-size", "8", "--lr", "0.01"]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """A data set in N-MNIST's layout with two classes, whose events differ in position."""
    root = tmp_path_factory.mktemp("nmnist")
    random = np.random.default_rng(0)
    for split, count in (("Train", 20), ("Test", 6)):
        for label in (0, 1):
            folder = root / split / str(label)
            folder.mkdir(parents=True)
            for i in range(count):
                events = np.empty((200, 5), np.uint8)
                events[:, :2] = random.integers(0, 17, (200, 2)) + 17 * label
                t = np.sort(random.integers(0, 300_000, 200)) | (random.integers(0, 2, 200) << 23)
                events[:, 2], events[:, 3], events[:, 4] = t >> 16, (t >> 8) & 255, t & 255
                (folder / f"{i:05}.bin").write_bytes(events.tobytes())
    return root


@pytest.fixture(autouse=True)
def unregistered():
    yield
    unregister()


def metrics(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


@contextmanager
def interrupted(epochs):
    """Within the block a training stops after so many epochs, as on Ctrl-C."""
    train_epoch, calls = training.loop.train_epoch, []

    def stopped(*positional, **named):
        if len(calls) == epochs:
            raise KeyboardInterrupt
        calls.append(None)
        return train_epoch(*positional, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.loop, "train_epoch", stopped)
        yield


def resumed_run(config, folder):
    """Check that a resumed run equals one that was not interrupted; return its result and its surrogate's numbers."""
    whole = training.train(config, folder / "whole", progress=False)
    with interrupted(1), pytest.raises(KeyboardInterrupt):
        training.train(config, folder / "parts", progress=False)
    parts = training.train(config, folder / "parts", resume=True, progress=False)
    assert metrics(folder / "parts") == metrics(folder / "whole")
    assert {**parts, "seconds": 0, "out": ""} == {**whole, "seconds": 0, "out": ""}
    first, second = (load_file(folder / name / training.CHECKPOINT) for name in ("whole", "parts"))
    assert first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())
    [numbers] = [bytes(value.tolist()) for name, value in first.items() if name.endswith("_extra_state")]
    return whole, json.loads(numbers)


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


@pytest.fixture
def finished(recordings, tmp_path):
    out = tmp_path / "finished"
    run("train", *SMALL, "--data-root", recordings, "--epochs", 1, "--out", out)
    return out


def assert_one_error(shown, *words):
    assert shown.exit_code == 2, shown.output
    assert len(shown.stderr.strip().splitlines()) == 1 and shown.stderr.startswith("error: ")
    for word in words:
        assert word in shown.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--surrogate", "htaf(alpha=0)"], ["alpha", "positive", "0"]),
        (["--surrogate", "htaf(beta=-1)"], ["beta", "positive", "-1"]),
        (["--surrogate", "relu"], ["relu", "atan"]),
        (["--surrogate", "snntorch.relu"], ["snntorch.relu", "atan"]),
        (["--surrogate", "htaf(beta"], ["htaf(beta"]),
        (["--surrogate", "snntorch.atan", "--library", "norse"], ["snntorch.atan", "Norse"]),
        (["--surrogate", "htaf(hardness=0.0)", "--library", "norse"], ["hardness 1", "Norse"]),
        (["--surrogate", "norse.adjoint", "--library", "norse"], ["norse.adjoint"]),
        (["--library", "keras"], ["library", "keras", "norse"]),
        (["--model", "rnn"], ["model", "rnn", "cnn"]),
        (["--dataset", "imagenet"], ["imagenet", "saccade-digits"]),
        (["--hidden", "a"], ["hidden", "'a'"]),
        (["--hidden", "0"], ["hidden"]),
        (["--epochs", "0"], ["epochs"]),
        (["--lr", "nan"], ["lr", "nan"]),
        (["--val-fraction", "1"], ["val-fraction"]),
        (["--data-root", "missing"], ["missing"]),
        (["--resume"], ["out"]),
    ],
)
def test_bad_input_is_one_line(recordings, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert_one_error(run("train", *SMALL, "--data-root", recordings, *arguments), *words)
    assert list(tmp_path.iterdir()) == []


def test_bad_folders_are_one_line(recordings, finished, tmp_path):
    small = ["train", *SMALL, "--data-root", recordings]
    file = tmp_path / "file"
    file.write_text("")
    assert_one_error(run(*small, "--out", file / "run"), str(file))
    assert_one_error(run(*small, "--out", finished), "out", "empty")
    assert_one_error(run("train", "--resume", "--out", tmp_path / "none"), "config.json")
    assert_one_error(run("train", "--resume", "--out", finished, "--seed", 3), "seed", "0", "3")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert_one_error(run("train", *SMALL, "--data-root", empty), str(empty))


def test_truncated_recording_is_one_line(tmp_path):
    for part in ("Train", "Test"):
        (tmp_path / part / "3").mkdir(parents=True)
        (tmp_path / part / "3" / "00001.bin").write_bytes(b"1234567")
    assert_one_error(run("train", *SMALL, "--data-root", tmp_path), "00001.bin", "byte 5")


def test_checkpoint_of_another_shape_is_one_line(finished):
    config = json.loads((finished / "config.json").read_text())
    (finished / "config.json").write_text(json.dumps({**config, "hidden": [13]}))
    before = (finished / training.CHECKPOINT).read_bytes()
    assert_one_error(run("train", "--resume", "--out", finished, "--epochs", 2), "layers.0.1.bias", "(13,)", "(12,)")
    assert (finished / training.CHECKPOINT).read_bytes() == before
    (finished / training.CHECKPOINT).write_bytes(before[:100])
    assert_one_error(run("train", "--resume", "--out", finished, "--epochs", 2), training.CHECKPOINT)
    os.remove(finished / training.CHECKPOINT)
    assert_one_error(run("train", "--resume", "--out", finished, "--epochs", 2), training.CHECKPOINT)


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


def test_unusable_device_is_named():
    if torch.cuda.is_available():
        pytest.skip("needs a machine without a GPU")
    with pytest.raises(ValueError, match="device"):
        training.train(Run(device="cuda"), "never")


@pytest.mark.parametrize(
    "command",
    [
        *("", "train", "profile", "icbm", "compare", "report", "bench", "datasets"),
        *(f"datasets {name}" for name in ("list", "info", "download", "cache", "verify", "clear")),
    ],
)
def test_help_shows_examples(command):
    shown = run(*command.split(), "--help")
    assert shown.exit_code == 0
    assert f"htaf-snn {command}" in shown.output.split("Examples")[1]


def test_help_keeps_what_looks_like_markup():
    assert '".[bench]"' in run("bench", "--help").output


def test_profile_command(tmp_path):
    shown = run("profile", "htaf", "snntorch.atan", "norse.super", "--plot", tmp_path / "s.png", "--json")
    profiles = json.loads(shown.stdout)
    assert [p["name"] for p in profiles] == ["htaf", "snntorch.atan", "norse.super"]
    assert profiles[0]["peak"] == 1.0 and (tmp_path / "s.png").stat().st_size > 10_000
    assert_one_error(run("profile", "htaf", "--plot", tmp_path / "none" / "s.png"), "none")
    assert_one_error(run("profile", "htaf", "--delta", "-1"), "--delta")
    assert_one_error(run("profile", "norse.heaviside"), "norse.heaviside")


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


def test_damaged_runs_are_one_line(finished, recordings):
    from safetensors.torch import load_file, save_file

    path = finished / "checkpoint.safetensors"
    tensors = load_file(path)
    for missing, word in (("optimizer.", "optimizer"), ("rng", "rng")):
        remaining = {k: v for k, v in tensors.items() if not k.startswith(missing)}
        save_file(remaining, path, {"epoch": "1"})
        assert_one_error(run("train", "--resume", "--out", finished, "--epochs", "2"), str(path), word)
    save_file(tensors, path, {"epoch": "1"})
    (finished / "metrics.jsonl").write_text("")
    assert_one_error(run("train", "--resume", "--out", finished, "--epochs", "2"), "metrics.jsonl", "1 lines", "0")
    assert training.read_config(finished).epochs == 1


def test_another_device_and_folder_may_be_named(recordings, finished):
    result = run("train", "--resume", "--out", finished, "--device", "cpu", "--data-root", recordings, "--epochs", "2")
    assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize("name", ["x", "x.jpg", "nowhere/x.png"])
def test_a_bad_plot_is_one_line_and_leaves_nothing(tmp_path, name):
    assert_one_error(run("profile", "htaf", "--plot", tmp_path / name), "--plot", ".png", name)
    assert list(tmp_path.iterdir()) == []


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
