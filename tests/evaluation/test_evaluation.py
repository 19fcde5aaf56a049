"""What becomes of a run after its training: `htaf-snn evaluate`, `htaf-snn predict`, and plots."""

import json
import shutil

import numpy as np
import pytest
import torch
from commands import run
from PIL import Image
from runs import SMALL

import neuromorphic_datasets as nd
from htaf_snn import nn as hnn
from htaf_snn import plots, training
from htaf_snn.evaluation import evaluate_run, figures, predict, predictions


@pytest.fixture(scope="module")
def spiking(tmp_path_factory, recordings):
    out = tmp_path_factory.mktemp("spiking") / "run"
    result = run("train", *SMALL, "--data-root", recordings, "--epochs", 4, "--out", out, "--json")
    return out, json.loads(result.stdout)


@pytest.fixture(scope="module")
def of_images(tmp_path_factory):
    out = tmp_path_factory.mktemp("images") / "run"
    training.train(training.Run(model="bnn", hidden=(32,), epochs=3, batch_size=128), out, progress=False)
    return out


def test_figures_of_a_spiking_network(spiking):
    out, result = spiking
    found = evaluate_run(out)
    assert json.loads((out / "evaluation.json").read_text()) == found
    assert found["accuracy"] == result["test_accuracy"] == found["accuracy_over_time"][-1]
    counts = torch.tensor(found["confusion"])
    assert counts.sum() == found["samples"] == 12 and counts.diagonal().sum() / 12 == found["accuracy"]
    assert list(found["accuracy_by_class"]) == [str(digit) for digit in range(10)]
    assert found["accuracy_by_class"]["7"] is None and found["accuracy_by_class"]["0"] is not None
    assert 1 <= found["decision_step"] <= 3 and len(found["spike_rate"]) == 1 and found["macs"] > 0
    page = (out / "evaluation.html").read_text()
    assert page.count("<svg") == 3 and "Confusion matrix" in page and "no samples" in page


def test_the_decision_stands_from_the_step_after_its_last_change(spiking, monkeypatch):
    classes = torch.tensor([[0, 0, 1, 1], [1, 0, 1, 0], [1, 0, 0, 1]])  # (T, B)
    # Scores whose running sums have these largest classes.
    wanted = torch.nn.functional.one_hot(classes, 2).float()
    scores = torch.cat([wanted[:1], wanted[1:] - wanted[:-1]])
    net = training.load(spiking[0])
    monkeypatch.setattr(net, "stream", lambda frames, state=None: (scores, None))
    found = figures._latency(net, [(torch.zeros(3, 4, 2, 34, 34), torch.tensor([1, 0, 0, 0]))])
    assert found["decision_step"] == (2 + 1 + 3 + 3) / 4
    assert found["accuracy_over_time"] == [1 / 4, 3 / 4, 3 / 4]


def test_the_command_evaluates(spiking, of_images, tmp_path, recordings):
    shown = run("evaluate", spiking[0])
    assert shown.exit_code == 0 and "test accuracy" in shown.stdout and "no samples" in shown.stdout
    shutil.copytree(recordings, tmp_path / "moved")
    shown = run("evaluate", spiking[0], "--data-root", tmp_path / "moved", "--json")
    assert json.loads(shown.stdout)["samples"] == 12
    shown = run("evaluate", of_images, "--json")
    assert "accuracy_over_time" not in json.loads(shown.stdout)
    shown = run("evaluate", tmp_path / "none")
    assert shown.exit_code == 2 and "expected the configuration of a run" in shown.stderr


def files(root):
    return sorted((root / "Test" / "0").glob("*.bin"))[:2] + sorted((root / "Test" / "1").glob("*.bin"))[:1]


def test_recordings_are_answered_as_in_the_test(spiking, recordings):
    net = training.load(spiking[0])
    for answer in predict(spiking[0], *files(recordings)):
        frames = nd.to_frames(nd.read_events(answer["file"]), (34, 34, 2), n_time_bins=3)
        with torch.no_grad():
            scores = net(torch.from_numpy(frames.astype(np.float32))[:, None])[0]
        assert list(answer["scores"].values()) == pytest.approx(scores.tolist(), abs=1e-5)
        assert answer["class"] == str(int(scores.argmax())) == answer["over_time"][-1]
        assert len(answer["over_time"]) == 3
    shown = run("predict", spiking[0], *files(recordings))
    assert shown.exit_code == 0 and len(shown.stdout.splitlines()) == 3 and "of 3)" in shown.stdout
    lines = run("predict", spiking[0], *files(recordings), "--json").stdout.splitlines()
    assert [json.loads(line)["file"] for line in lines] == [str(path) for path in files(recordings)]


@pytest.mark.filterwarnings("ignore:time_window")  # shorter frames than in the training
def test_a_stream_is_answered_in_parts(spiking, recordings, monkeypatch):
    path = files(recordings)[0]
    [whole] = predict(spiking[0], path, time_window=20_000)
    monkeypatch.setattr(predictions, "_CHUNK", 4)
    [parts] = predict(spiking[0], path, time_window=20_000)
    assert len(whole["over_time"]) > 8 and parts["over_time"] == whole["over_time"]
    assert list(parts["scores"].values()) == pytest.approx(list(whole["scores"].values()), abs=1e-5)


def test_a_network_of_one_time_step_is_streamed_too():
    net = training.make_model(training.Run(n_time_bins=1, hidden=(4,)), (2, 5, 5), 3)
    net.frame_shape = (1, 2, 5, 5)
    assert net.stream(torch.zeros(6, 1, 2, 5, 5))[0].shape == (6, 1, 3)


def test_images_are_answered(of_images, tmp_path):
    _, test = nd.images.load("digits")
    pixels = (test.images[0, 0].float() * 255 / test.white).round().byte().numpy()
    Image.fromarray(pixels).save(tmp_path / "digit.png")
    [answer] = predict(of_images, tmp_path / "digit.png")
    with torch.no_grad():
        scores = training.load(of_images)(test[0][0][None])[0]
    assert answer["class"] == str(int(scores.argmax())) and "over_time" not in answer
    Image.new("L", (9, 9)).save(tmp_path / "large.png")
    shown = run("predict", of_images, tmp_path / "large.png")
    assert shown.exit_code == 2 and "expected an image of (C, H, W) = (1, 8, 8), got (1, 9, 9)" in shown.stderr
    shown = run("predict", of_images, tmp_path / "digit.png", "--time-window", 9)
    assert shown.stderr == "error: --time-window: expected None for a network of images, got 9.0; leave it out\n"
    shown = run("predict", of_images)
    assert shown.exit_code == 2 and "files: expected one or more" in shown.stderr


def test_what_is_no_image_of_the_network_is_answered_with_a_remedy(of_images, tmp_path):
    (tmp_path / "photos").mkdir()
    resize = "; to take images of any size, train with resize=, on the command line --resize"
    expected = {"photos": "expected an image, got a folder", "none.png": "expected an image, got no file"}
    for name, kind, size, remedy in (
        ("large.png", "L", 9, resize),
        ("colour.png", "RGB", 8, "; convert the image to grey"),
        ("both.png", "RGB", 9, f"; convert the image to grey{resize}"),
    ):
        Image.new(kind, (size, size)).save(tmp_path / name)
        shape = (len(kind), size, size)
        expected[name] = f"expected an image of (C, H, W) = (1, 8, 8), got {shape}{remedy}"
    files = [tmp_path / name for name in expected]
    shown = run("predict", of_images, *files)
    messages = [f"{path}: {message}" for path, message in zip(files, expected.values(), strict=True)]
    assert shown.stderr.splitlines()[:-1] == [f"error: {message}" for message in messages]
    with pytest.raises(TypeError, match=r"^paths: expected a path of a file, got \[.*; write predict\(out, \*files\)$"):
        predict(of_images, files)
    with pytest.raises(TypeError, match=r"^paths: expected a path of a file, got 3$"):
        predict(of_images, 3, on_error="answer")


def test_images_are_read_as_a_data_set_reads_them(tmp_path):
    for name, size in (("cat", (7, 5)), ("dog", (5, 7))):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(5):
            values = np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8)
            Image.fromarray(values).save(tmp_path / "set" / name / f"{number}.png")
    stored = [image for part in nd.images.load(tmp_path / "set", resize=(6, 4)) for image, _ in part]
    for path in (tmp_path / "set").rglob("*.png"):
        own = nd.images.read(path, resize=(6, 4))
        assert any(torch.equal(own, image) for image in stored)
    with pytest.raises(FileNotFoundError, match="expected an image, got no file"):
        nd.images.read(tmp_path / "none.png")


def test_plots(of_images):
    spikes, _ = hnn.Leaky(beta=0.9)(torch.rand(20, 2, 30))
    axes = plots.raster(spikes, sample=1).axes[0]
    assert len(axes.collections[0].get_offsets()) == int(spikes[:, 1].sum())
    axes = plots.traces(torch.rand(20, 2, 3, 3), threshold=1.0).axes[0]
    assert axes.get_legend_handles_labels()[1][-1] == "threshold"
    curves = plots.learning_curves(of_images)
    assert [line.get_label() for line in curves.axes[1].lines] == ["train", "val"]
    assert len(curves.axes[0].lines[0].get_xdata()) == 3
    for wrong, error in ((torch.rand(3), ValueError), ([[1]], TypeError)):
        with pytest.raises(error, match=r"^spikes: expected"):
            plots.raster(wrong)
    with pytest.raises(ValueError, match=r"^sample: expected an integer from 0 to 1, got 2"):
        plots.raster(spikes, sample=2)
    with pytest.raises(ValueError, match=r"^sample: expected an integer from 0 to 0, got 1"):
        plots.raster(spikes[:, 0], sample=1)
    with pytest.raises(ValueError, match=r"^sample: expected an integer from 0 to 1, got True"):
        plots.raster(spikes, sample=True)
    with pytest.raises(ValueError, match=r"^most: expected an integer of at least 1, got 0"):
        plots.traces(spikes, most=0)
    with pytest.raises(ValueError, match=r"^spikes: expected one sample or more"):
        plots.raster(spikes[:, :0])
    with pytest.raises(FileNotFoundError, match="expected the metrics of a run"):
        plots.learning_curves("nowhere")
    with pytest.raises(ValueError, match=r"^counts: expected 3 rows and columns"):
        plots.confusion([[1]], ["a", "b", "c"])
