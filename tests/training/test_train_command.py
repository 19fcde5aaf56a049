"""`htaf-snn train`: its help, and one line for each mistake."""

import json
import os
from datetime import datetime
from types import SimpleNamespace

import pytest
import torch
from commands import run
from runs import SMALL, assert_one_error
from safetensors.torch import load_file

from htaf_snn import _files, training
from htaf_snn.cli import _app
from htaf_snn.training import Run


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


def test_runs_of_one_second_have_folders_of_their_own(recordings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_app, "datetime", SimpleNamespace(now=lambda: datetime(2026, 1, 2, 3, 4, 5)))
    small = ["train", *SMALL, "--data-root", recordings, "--epochs", 1, "--json"]
    runs = [run(*small), run(*small), run(*small, "--surrogate", "htaf(alpha=0)")]
    names = ["runs/20260102-030405", "runs/20260102-030405-2"]
    assert [json.loads(shown.stdout)["out"] for shown in runs[:2]] == names, [shown.stderr for shown in runs]
    assert runs[2].exit_code == 2 and sorted(os.listdir("runs")) == [os.path.basename(name) for name in names]
    with _files.unique_folder(tmp_path / "new" / "one") as first, _files.unique_folder(first) as second:
        assert first.is_dir() and second.name == "one-2"  # the first is empty still
    assert not (tmp_path / "new").exists()


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


def test_damaged_runs_are_one_line(finished, recordings):
    from safetensors.torch import save_file

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
