"""Your own data through the commands: one command each."""

import json
import sys

import numpy as np
import pytest
from commands import run
from PIL import Image

import neuromorphic_datasets as nd
from htaf_snn import compare, training

TACTILE = """
import numpy as np
import neuromorphic_datasets as nd

def press(seed, side):
    \"\"\"Events of a row of 39 taxels, pressed on one side.\"\"\"
    rng = np.random.default_rng(seed)
    events = np.zeros(40, [(field, np.int64) for field in "xtp"])
    events["x"], events["p"] = rng.integers(20, size=40) + 19 * side, rng.integers(2, size=40)
    events["t"] = np.sort(rng.integers(100_000, size=40))
    return events

def presses():
    sides = np.arange(60) % 2
    recordings = [press(seed, side) for seed, side in enumerate(sides)]
    return nd.EventList(recordings, sides, sensor_size=(39, 1, 2), classes=["left", "right"], name="tactile")
"""


@pytest.fixture
def tactile(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "tactile_set.py").write_text(TACTILE)
    yield f"{tmp_path / 'tactile_set.py'}:presses"
    sys.modules.pop("tactile_set", None)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Recordings of bars that move left or right, in a folder for each direction."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for direction, name in ((1, "right"), (-1, "left")):
        (tmp_path / "bars" / name).mkdir(parents=True)
        for number in range(20):
            steps = np.arange(40)
            x = (number + direction * steps // 2) % 12
            lines = [f"{1000 * step},{column},{step % 5},1" for step, column in zip(steps, x, strict=True)]
            (tmp_path / "bars" / name / f"{number}.csv").write_text("\n".join(["t,x@12,y@5,p", *lines]))
    return str(tmp_path / "bars")


def invoked(*arguments):
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.thorough
def test_a_tactile_set_is_trained_on_and_compared(tactile, tmp_path):
    small = "--dataset", tactile, "--epochs", 8, "--n-time-bins", 5
    result = invoked("train", *small, "--hidden", "32", "--lr", "1e-2", "--out", tmp_path / "run")
    assert result["test_accuracy"] > 0.8
    assert training.load(tmp_path / "run") is not None
    rows = invoked("compare", *small, "--surrogates", "htaf", "--seeds", 1, "--width", 8, "--out", tmp_path / "study")
    assert rows[0]["dataset"] == tactile
    assert compare.Study(tmp_path / "study").counts() == {"finished": 1, "failed": 0, "running": 0, "waiting": 0}


@pytest.mark.thorough
def test_an_event_folder_is_trained_on_and_compared(folder, tmp_path):
    small = "--dataset", folder, "--epochs", 2, "--n-time-bins", 5
    result = invoked("train", *small, "--hidden", "16", "--out", tmp_path / "run")
    assert 0 <= result["test_accuracy"] <= 1
    rows = invoked("compare", *small, "--surrogates", "htaf", "--seeds", 1, "--width", 8, "--out", tmp_path / "study")
    assert rows[0]["dataset"] == folder
    report = (tmp_path / "study" / "report.html").read_text()
    assert "not available" not in report


@pytest.mark.thorough
def test_images_of_any_size_in_every_command(tmp_path):
    rng = np.random.default_rng(0)
    for name, low in (("dark", 0), ("light", 128)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(20):
            pixels = rng.integers(low, low + 100, size=(10 + number, 12), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{number}.pgm")
    data = "--dataset", tmp_path / "images", "--resize", "8,9", "--epochs", 1
    invoked("train", "--model", "dhn", *data, "--hidden", "16", "--out", tmp_path / "dhn")
    assert training.read_config(tmp_path / "dhn").resize == (8, 9)
    invoked("icbm", *data, "--n-concepts", 4, "--width", 2, "--out", tmp_path / "icbm")
    small = "--surrogates", "htaf", "--seeds", 1, "--width", 8, "--out", tmp_path / "study"
    invoked("compare", "--model", "dhn", *data, *small)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--dataset", "nowhere"], "--dataset: expected one of"),
        (["compare", "--dataset", "nowhere"], "--dataset: expected one of"),
        (["icbm", "--dataset", "nowhere"], "--dataset: expected one of"),
        (
            ["icbm", "--dataset", "digits", "--resize", "big"],
            "--resize: expected integers separated by commas, got 'big'",
        ),
        (["train", "--resize", "8"], "resize: 8 has no effect on the model mlp"),
        (["train", "--model", "dhn", "--resize", "0"], "resize: expected None, a side of at least 1"),
    ],
)
def test_mistakes_are_named(arguments, message, tmp_path):
    result = run(*arguments, "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_recordings_are_no_images_and_images_no_recordings(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="expected images"):
        nd.images.load(folder)
    (tmp_path / "images" / "a").mkdir(parents=True)
    Image.new("L", (4, 4)).save(tmp_path / "images" / "a" / "0.png")
    with pytest.raises(FileNotFoundError, match="expected recordings"):
        nd.load(tmp_path / "images")


def test_a_package_s_name_is_no_path(tmp_path, monkeypatch):
    from htaf_snn.cli._options import _source

    monkeypatch.chdir(tmp_path)
    (tmp_path / "sets").mkdir()
    assert _source("sets:mine") == "sets:mine"
    assert _source("sets") == str(tmp_path / "sets")
    assert _source("sets.py:mine") == f"{tmp_path / 'sets.py'}:mine"
    assert _source("nmnist") == "nmnist"
