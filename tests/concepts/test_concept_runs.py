"""`htaf-snn icbm`: runs in folders, resumed, measured, loaded."""

import json
import shutil
from functools import partial

import numpy as np
import pytest
import torch
from commands import run
from image_folders import write_images
from runs import interrupted, metrics, torchrun
from safetensors.torch import load_file
from torch import nn

from htaf_snn import concepts, hardening, models, training
from neuromorphic_datasets import images

SMALL = ["--epochs", "2", "--width", "4", "--n-concepts", "12", "--batch-size", "128"]
ONE = concepts.ConceptRecipe(epochs=1)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("icbm") / "run"
    result = run("icbm", *SMALL, "--max-concepts-per-class", 3, "--json", "--out", out)
    assert result.exit_code == 0, result.stderr
    return out, json.loads(result.stdout)


def figures(result):
    """The figures of a result that do not depend on the time and the folder."""
    return {name: value for name, value in result.items() if name not in ("seconds", "out")}


def test_a_run_writes_figures_codes_and_a_page(finished):
    out, result = finished
    assert {"test_accuracy", "smooth_test_accuracy", "hardening_gap", "dead", "dense_accuracy"} <= result.keys()
    assert json.loads((out / "result.json").read_text()) == result
    assert "<title>Concepts of digits</title>" in (out / "atlas.html").read_text()
    _, _, test = images.loaders("digits", batch_size=128)
    model = training.load(out)
    with np.load(out / "codes.npz") as archive:
        np.testing.assert_array_equal(archive["bits"], concepts.codes(model, test).numpy())
    assert (model.head.weight != 0).sum(1).max() <= 3
    assert training.evaluate(model, test)["accuracy"] == result["test_accuracy"]
    assert hardening.is_hard(model)
    assert concepts.measure(model, images.loaders("digits", batch_size=128)[0], test)["hardening_gap"] == 0.0
    codes = [concepts.codes(model, loader) for loader in (images.loaders("digits", batch_size=128)[0], test)]
    curve = concepts.intervention_curve(model, *codes)
    assert np.mean(curve["accuracy"]) == pytest.approx(result["intervention_auc"], abs=1e-6)
    assert curve["accuracy"][0] == pytest.approx(result["test_accuracy"], abs=0.01)


@pytest.mark.thorough
def test_an_interrupted_run_resumes_exactly(finished, tmp_path):
    with interrupted(1):
        result = run("icbm", *SMALL, "--max-concepts-per-class", 3, "--out", tmp_path / "run")
    assert result.exit_code == 130
    assert "htaf-snn icbm --resume --out" in result.stderr
    assert not (tmp_path / "run" / "atlas.html").exists()
    result = run("icbm", "--resume", "--json", "--out", tmp_path / "run")
    assert result.exit_code == 0, result.stderr
    assert figures(json.loads(result.stdout)) == figures(finished[1])
    assert metrics(tmp_path / "run") == metrics(finished[0])


def test_a_run_without_progress_is_silent(tmp_path, capsys):
    config = concepts.ConceptRun(epochs=2, width=4, n_concepts=12, batch_size=128, max_concepts_per_class=3)
    concepts.train(config, tmp_path / "run", progress=False)
    assert capsys.readouterr().err == ""


@pytest.mark.thorough
def test_a_run_annealed_to_hardness_1_resumes_exactly_without_a_gap(tmp_path):
    config = concepts.ConceptRun(epochs=2, width=4, n_concepts=12, batch_size=128, anneal="hardness")
    whole = concepts.train(config, tmp_path / "whole", progress=False)
    with interrupted(1), pytest.raises(KeyboardInterrupt):
        concepts.train(config, tmp_path / "parts", progress=False)
    parts = concepts.train(config, tmp_path / "parts", resume=True, progress=False)
    assert figures(parts) == figures(whole)
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")
    first, second = (load_file(tmp_path / name / training.CHECKPOINT) for name in ("whole", "parts"))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert whole["hardening_gap"] == 0.0 and whole["smooth_test_accuracy"] == whole["test_accuracy"]


def test_a_folder_of_images(tmp_path):
    write_images(tmp_path / "mine", ["cat", "dog"], 30, (9, 12))
    mine = ["icbm", *SMALL, "--dataset", tmp_path / "mine"]
    result = run(*mine, "--surrogate", "clipped_ste", "--out", tmp_path / "run")
    assert result.exit_code == 0, result.stderr
    assert "hardening gap 0.0000" in result.stdout and "dead concepts" in result.stdout
    assert '"classes":["cat","dog"]' in (tmp_path / "run" / "atlas.html").read_text()
    result = run(*mine, "--surrogate", "relu", "--out", tmp_path / "real")
    assert result.exit_code == 0, result.stderr
    assert "atlas" not in result.stdout and not (tmp_path / "real" / "atlas.html").exists()


def test_results_older_than_the_training_are_removed(finished, tmp_path):
    """A sparse head from fewer epochs would be used with the concepts of more."""
    shutil.copytree(finished[0], tmp_path / "run")

    with interrupted(0):
        assert run("icbm", "--resume", "--epochs", "3", "--out", tmp_path / "run").exit_code == 130
    files = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert files == ["checkpoint.safetensors", "config.json", "data.json", "metrics.jsonl"]


def test_damaged_runs_cannot_be_loaded(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    (tmp_path / "run" / "sparse-head.safetensors").write_bytes(b"other")
    with pytest.raises(ValueError, match=r"sparse-head\.safetensors: expected the head of this model"):
        training.load(tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    (tmp_path / "run" / "data.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"data\.json: expected what the run was trained on"):
        training.load(tmp_path / "run")
    for other, message in (({}, "with 'activity', got none"), ({"width": 0}, "width: expected an integer")):
        values = {name: config[name] for name in config if other or name != "activity"} | other
        (tmp_path / "run" / "config.json").write_text(json.dumps(values))
        with pytest.raises(ValueError, match=message):
            training.load(tmp_path / "run")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--dataset", "imagenet"], "--dataset: expected one of"),
        (["--n-concepts", "0"], "n-concepts: expected an integer of at least 1, got 0"),
        (["--surrogate", "magic"], "unknown surrogate 'magic'"),
        (["--max-concepts-per-class", "13"], "max-concepts-per-class: expected None or 1 to 12, got 13"),
        (["--entropy", "-1"], "entropy: expected a number in [0, 1e6]"),
        (["--alpha-end", "0"], "alpha-end"),
        (["--alpha-end", "5"], "alpha-end: 5.0 has no effect with anneal='none', only with alpha"),
        (["--anneal", "hardness", "--surrogate", "relu"], "anneal: expected 'none' for neurons that hold no"),
        (["--resume"], "out: expected the folder of the run to resume"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    result = run("icbm", *SMALL, *arguments)
    assert result.exit_code == 2
    assert words in result.stderr and "Traceback" not in result.stderr
    assert not [*tmp_path.iterdir()]


def test_a_finished_run_is_not_overwritten(finished):
    result = run("icbm", *SMALL, "--out", finished[0])
    assert (result.exit_code, "expected a new or empty folder" in result.stderr) == (2, True)
    result = run("icbm", "--resume", "--width", "5", "--out", finished[0])
    assert (result.exit_code, "width: expected 4" in result.stderr) == (2, True)


@pytest.mark.thorough
def test_several_processes_train_one_model(tmp_path):
    pytest.importorskip("lightning_fabric", reason="lightning-fabric is not installed")
    result = torchrun("icbm", *SMALL, "--out", tmp_path / "both", "--json")
    assert result.returncode == 0, result.stderr
    assert 0 < json.loads(result.stdout)["test_accuracy"] <= 1
    assert (tmp_path / "both" / "atlas.html").is_file()


@pytest.mark.thorough
def test_a_compiled_model_learns(tmp_path, monkeypatch):
    """Traced as for any backend; the one that compiles takes a minute for convolutions on a CPU."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    result = run("icbm", *SMALL, "--compiled", "--precision", "bf16", "--json", "--out", tmp_path / "run")
    assert result.exit_code == 0, result.stderr
    lines = metrics(tmp_path / "run")
    assert lines[1]["train_loss"] < lines[0]["train_loss"]


def test_images_too_small_are_refused(tmp_path):
    write_images(tmp_path / "mine", ["cat", "dog"], 30)
    result = run("icbm", *SMALL, "--dataset", tmp_path / "mine", "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert "expected images (B, 1, H, W) of 8 x 8 at least, got (12, 1, 6, 5)" in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_folder_of_fit_can_be_loaded(tmp_path):
    """The backbone is the user's own, so the folder holds only weights, for a model of the same structure."""
    train, _, test = images.loaders("digits", batch_size=256)

    def new():
        backbone = nn.Sequential(nn.Flatten(), nn.Linear(64, 20))
        return models.ICBM(backbone, n_concepts=7, n_classes=10, surrogate="htaf(hardness=0.0)")

    model = new()
    concepts.fit(model, train, recipe=ONE, out=tmp_path, progress=False)
    other = training.load(tmp_path, new())
    assert training.evaluate(other, test) == training.evaluate(model, test)
    assert other.image_shape == (1, 8, 8) and not other.training
    assert hardening.is_hard(other) and not hardening.is_hard(model)
    with pytest.raises(TypeError, match=r"^model: expected a network like the one that fit trained in"):
        training.load(tmp_path)
    with pytest.raises(ValueError, match=r"^lr: expected 0\.008, as in the run to resume, got 0\.1"):
        concepts.fit(
            model, train, recipe=concepts.ConceptRecipe(epochs=1, lr=0.1), out=tmp_path, resume=True, progress=False
        )


def test_every_kind_of_run_is_loaded_by_one_function(finished, tmp_path):
    with pytest.raises(TypeError, match=r"^model: expected None for .*, whose configuration defines it, got .*ICBM"):
        training.load(finished[0], training.load(finished[0]))
    config = training.Run(model="dhn", hidden=(4,), epochs=1, batch_size=256)
    training.train(config, tmp_path / "run", progress=False)
    with pytest.raises(ValueError, match=r"expected one of htaf-snn icbm, got a run of htaf-snn train"):
        concepts.train(concepts.ConceptRun(), tmp_path / "run", resume=True)
    net = training.load(tmp_path / "run")
    (tmp_path / "run" / "config.json").unlink()
    with pytest.raises(TypeError, match=r"^model: expected a network like the one that fit trained in .*, got None"):
        training.load(tmp_path / "run")
    again = models.DeepHeavisideNet(64, (4,), 10)
    assert training.load(tmp_path / "run", again) is again and torch.equal(again[1].weight, net[1].weight)
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"open it with compare\.Study\(out\)"):
        training.load(tmp_path)


def test_weights_of_other_concepts_are_refused(tmp_path):
    def new(surrogate):
        return models.ICBM(nn.Flatten(), 7, 10, in_features=64, surrogate=surrogate)

    train, _, _ = images.loaders("digits", batch_size=256)
    smooth = "htaf(hardness=0.0)"
    concepts.fit(new(smooth), train, recipe=ONE, out=tmp_path, progress=False)
    for other, name in (("relu", "ReLU"), ("atan", "ATan"), ("snntorch.atan", "snntorch.atan")):
        with pytest.raises(ValueError, match=r"checkpoint\.safetensors: .*expected"):
            training.load(tmp_path, new(other))
        with pytest.raises(ValueError, match=f"^activation: expected HTAF, .* got {name}"):
            concepts.fit(new(other), train, recipe=ONE, out=tmp_path, resume=True, progress=False)
    for other, numbers in (("htaf", "{'hardness': 1.0, "), ("htaf(beta=3, hardness=0.0)", "'beta': 3.0")):
        with pytest.raises(ValueError, match=rf"^surrogate_at_start: .* as in the run to resume, got .*{numbers}"):
            concepts.fit(new(other), train, recipe=ONE, out=tmp_path, resume=True, progress=False)
    trained = training.load(tmp_path, new("htaf(beta=3)"))
    assert trained.concept_layer.activation.surrogate.beta == 4.0
    assert training.load(tmp_path, trained) is trained


def test_a_training_with_a_callable_resumes(tmp_path):
    """A callable's address differs between processes, and must not count."""
    train, _, _ = images.loaders("digits", batch_size=256)
    functions = []
    for epochs in (1, 2):
        function = lambda x: (x > 0).to(x.dtype) + x - x.detach()  # noqa: E731
        model = models.ICBM(nn.Flatten(), 7, 10, in_features=64, surrogate=function)
        metrics = concepts.fit(
            model, train, recipe=concepts.ConceptRecipe(epochs=epochs), out=tmp_path, resume=epochs > 1
        )
        assert len(metrics) == epochs
        functions.append(function)  # kept, so that the second has another address
