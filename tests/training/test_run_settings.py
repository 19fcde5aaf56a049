"""Settings as users write them, and the data of a resumed run."""

import json
import re
import shutil
from dataclasses import asdict

import numpy as np
import pytest
import torch
from commands import run
from PIL import Image
from torch import nn

from htaf_snn import deploy, training
from htaf_snn import nn as hnn
from htaf_snn.compare import Settings
from htaf_snn.configuration import ConceptRecipe, ConceptRun, Recipe
from htaf_snn.evaluation import predict
from htaf_snn.training import Run


def folders(root, counts):
    """Make class folders of random 8 x 8 images, with the given number per class."""
    generator = np.random.default_rng(0)
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(generator.integers(0, 256, (8, 8), np.uint8)).save(root / name / f"{number}.png")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"d": 20, "c": 20}, "classes: expected ['c', 'e'], as in the run to resume, got ['c', 'd']"),
        ({"c": 20, "e": 15}, "samples: expected ["),
        ({"c": 20, "e": 20, "f": 20}, "classes: expected ['c', 'e'], as in the run"),
    ],
)
@pytest.mark.parametrize("command", [["train", "--model", "relu", "--hidden", 4], ["icbm", "--width", 2]])
def test_a_run_is_not_resumed_on_other_data(tmp_path, command, changed, message):
    folders(tmp_path / "data", {"c": 20, "e": 20})
    out = ["--out", tmp_path / "run"]
    result = run(*command, "--dataset", tmp_path / "data", "--epochs", 1, "--device", "cpu", *out)
    assert result.exit_code == 0, result.stderr
    shutil.rmtree(tmp_path / "data")
    folders(tmp_path / "data", changed)
    before = (tmp_path / "run" / "config.json").read_text(), (tmp_path / "run" / "result.json").read_text()
    result = run(command[0], "--resume", "--epochs", 2, *out)
    assert result.exit_code == 2 and message in result.stderr, result.stderr
    assert before == tuple((tmp_path / "run" / name).read_text() for name in ("config.json", "result.json"))


@pytest.mark.parametrize("kind", [Run, ConceptRecipe, ConceptRun])
def test_settings_take_numpy_numbers(kind):
    values = {"epochs": np.int64(3), "lr": np.float32(0.5), "alpha_end": np.float64(20)}
    values |= {"seed": np.uint8(4)} if kind is not ConceptRecipe else {"entropy": np.float16(2)}
    values |= {"hidden": [np.int64(3), 4]} if kind is Run else {}
    plain = asdict(kind(**values))
    assert json.loads(json.dumps(plain)) | {"hidden": (3, 4), "augment": ()} == plain | {
        "hidden": (3, 4),
        "augment": (),
    }
    assert {name: plain[name] for name in values} == {**values, **({"hidden": (3, 4)} if kind is Run else {})}
    assert {type(plain[name]) for name in values} <= {int, float, tuple}


@pytest.mark.parametrize("kind", [Run, ConceptRun])
@pytest.mark.parametrize("wrong", [{"seed": 1.5}, {"seed": -1}, {"seed": 2**63}, {"lr": True}, {"batch_size": 1.5}])
def test_settings_that_are_no_numbers(kind, wrong):
    [(name, value)] = wrong.items()
    with pytest.raises(ValueError, match=f"^{name}: expected an? .*, got {value!r}"):
        kind(**wrong)


def test_a_study_takes_numpy_numbers():
    settings = Settings.of(
        depths=np.arange(1, 3), lrs=np.logspace(-3, -2, 2), slopes=[np.float32(0.5)], seeds=np.int64(3)
    )
    plain = settings.as_dict()
    assert json.loads(json.dumps(plain))["lrs"] == [0.001, 0.01]
    assert (settings.depths, settings.slopes, settings.seeds) == ((1, 2), (0.5,), 3)
    for wrong in ({"lrs": [True]}, {"depths": [1.5]}, {"seeds": True}):
        with pytest.raises(ValueError, match=f"^{next(iter(wrong))}"):
            Settings.of(**wrong)


def test_a_data_set_is_named_by_text():
    with pytest.raises(
        ValueError, match=r"^dataset: expected a name, a folder or FILE\.py:NAME, as text .* got \('a', 'b'\)"
    ):
        Run(dataset=("a", "b"))


def test_alpha_end_needs_an_annealing_of_alpha():
    with pytest.raises(ValueError, match=r"^alpha_end: 5\.0 has no effect with anneal='none', only with alpha"):
        Recipe(alpha_end=5.0)


def test_what_is_no_folder_of_a_run_is_named(tmp_path):
    net = nn.Sequential(nn.Linear(4, 3), hnn.BinaryActivation(), hnn.HeavisideLinear(3, 2)).eval()
    deploy.save(deploy.pack(net), tmp_path / "net.safetensors")
    (tmp_path / "d.png").write_bytes(b"")
    for name, use in (("net.safetensors", "; a packed network is loaded by deploy.load"), ("d.png", "")):
        message = f"{re.escape(name)}: expected the folder of a run, got a file{use}"
        with pytest.raises(NotADirectoryError, match=f"{message}$"):
            training.load(tmp_path / name)
        shown = run("predict", tmp_path / name, tmp_path)
        assert shown.exit_code == 2 and re.search(f"{message}\n$", shown.stderr)


def test_a_folder_or_a_file_of_fit_is_named(tmp_path):
    batches = [(torch.rand(4, 3), torch.tensor([0, 1, 0, 1]))]
    training.fit(nn.Linear(3, 2), batches, out=tmp_path, recipe=training.Recipe(epochs=1), progress=False)
    with pytest.raises(FileNotFoundError, match=r"got no file; .* of training.fit, .*training.load\(out, network\)$"):
        next(predict(tmp_path, "d.png"))
    with pytest.raises(NotADirectoryError, match=f"got a file; pass its folder, {re.escape(str(tmp_path))}$"):
        training.load(tmp_path / "checkpoint.safetensors", nn.Linear(3, 2))
