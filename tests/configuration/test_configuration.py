"""The configuration of a run, in Python, in files and as options."""

import json
import re
from dataclasses import asdict, fields
from pathlib import Path

import pytest
from commands import run

import htaf_snn
from htaf_snn import configuration, training
from htaf_snn.configuration import ConceptRun, Run, StudySettings, read_file

SMALL = ["--model", "dhn", "--hidden", "8", "--epochs", 1, "--batch-size", 256]
RECIPES = sorted((Path(htaf_snn.__file__).parent / "recipes").glob("*.toml"))


def toml(values):
    """Return values as TOML, which has no null."""
    return "\n".join(f"{name} = {json.dumps(value)}" for name, value in values.items() if value is not None)


@pytest.mark.parametrize(
    "config",
    [
        Run(),
        Run(model="plif-net", width=8, augment=("flip",), clip_gradient=1.0, tbptt=4, loss="tet"),
        Run(model="binary-cnn", resize=(8, 9), early_stopping=3, schedule="cosine", seed=2**63 - 1),
        ConceptRun(max_concepts_per_class=3, lr=1e-4),
    ],
)
def test_a_configuration_survives_toml_and_json(config, tmp_path):
    (tmp_path / "run.toml").write_text(toml(asdict(config)))
    assert type(config)(**read_file(tmp_path / "run.toml", type(config))) == config
    (tmp_path / "run.json").write_text(json.dumps(asdict(config)))
    assert type(config)(**read_file(tmp_path / "run.json", type(config))) == config


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_are_configurations_that_name_their_source(path):
    config = Run(**read_file(path.stem, Run))
    assert read_file(path, Run) == read_file(path.stem, Run) and config.dataset == path.stem
    assert re.search(r"\d{4}\.\d{5}", path.read_text()) and "Not measured by us." in path.read_text()
    assert path.stem in run("train", "--help").output


def test_options_override_a_file_and_a_run_is_one(tmp_path):
    (tmp_path / "small.toml").write_text('model = "dhn"\nhidden = [8]\nepochs = 1\nbatch_size = 256\nlr = 0.5\n')
    file = ["--recipe", tmp_path / "small.toml"]
    assert run("train", *file, "--lr", "0.01", "--out", tmp_path / "one").exit_code == 0
    config = training.read_config(tmp_path / "one")
    assert (config.model, config.hidden, config.lr) == ("dhn", (8,), 0.01)
    again = ["--recipe", tmp_path / "one" / "config.json", "--seed", 3, "--out", tmp_path / "two"]
    assert run("train", *again).exit_code == 0
    assert asdict(training.read_config(tmp_path / "two")) == asdict(config) | {"seed": 3}
    assert run("train", *again[:2], "--model", "relu", "--out", tmp_path / "three").exit_code == 0
    (tmp_path / "mlp.json").write_text(json.dumps(asdict(Run())))
    assert run("train", "--recipe", tmp_path / "mlp.json", *SMALL, "--out", tmp_path / "four").exit_code == 0
    assert training.read_config(tmp_path / "four").dataset == "digits"
    shown = run("train", *file, "--resume", "--out", tmp_path / "one")
    assert shown.exit_code == 2 and "recipe: expected none with --resume" in shown.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modle = 'dhn'", "got 'modle'; did you mean model?"),
        ("epochs = ", "expected TOML, or JSON in a file named .json"),
        ("epochs = 'many'", "--epochs: expected an integer of at least 1, got 'many'"),
        ("download = 1", "--download: expected true or false, got 1"),
        ("[recipe]\nlr = 1", "got 'recipe'"),
    ],
)
def test_a_faulty_file_is_named(tmp_path, text, message):
    (tmp_path / "a.toml").write_text(text)
    shown = run("train", "--recipe", tmp_path / "a.toml", "--out", tmp_path / "run")
    assert shown.exit_code == 2 and message in shown.stderr and not (tmp_path / "run").exists()


def test_names_that_are_misspelt_get_a_hint(tmp_path):
    for arguments, hint in (
        (["trian"], 'Did you mean "train"?'),
        (["train", "--batch-sise", 3], "Did you mean --batch-size?"),
        (["train", "--model", "plifnet"], 'Did you mean "plif-net"?'),
        (["train", "--surrogate", "hatf"], "did you mean htaf?"),
        (["train", "--neuron", "laeky(beta=0.9)"], "did you mean leaky?"),
        (["train", "--recipe", "dvsgestrue"], "got nothing of that name; did you mean dvsgesture?"),
    ):
        shown = run(*arguments, *(["--out", tmp_path / "run"] if arguments[0] == "train" else []))
        assert shown.exit_code == 2 and hint in shown.stderr, shown.stderr


def test_a_run_is_started_over_only_where_there_is_one(tmp_path):
    out = ["--out", tmp_path / "run"]
    assert run("train", *SMALL, *out).exit_code == 0
    assert run("train", *SMALL, *out).exit_code == 2
    assert run("train", *SMALL, "--force", "--seed", 1, *out).exit_code == 0
    assert training.read_config(tmp_path / "run").seed == 1
    shown = run("train", "--force", "--resume", *out)
    assert shown.exit_code == 2 and "either --resume or --force" in shown.stderr
    before = (tmp_path / "run" / "result.json").read_bytes()
    assert run("train", *SMALL, "--surrogate", "hatf", "--force", *out).exit_code == 2
    assert (tmp_path / "run" / "result.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    shown = run("train", *SMALL, "--force", "--out", tmp_path / "mine")
    assert shown.exit_code == 2 and "which has other files" in shown.stderr
    assert (tmp_path / "mine" / "thesis.tex").exists()


def test_an_icbm_has_no_time():
    for wrong in ({"loss": "tet"}, {"tbptt": 3}):
        with pytest.raises(ValueError, match=r"has no effect on an ICBM, only on spiking networks"):
            ConceptRun(**wrong)
    with pytest.raises(ValueError, match=r"^early_stopping: expected None without validation data"):
        ConceptRun(early_stopping=3, val_fraction=0)


@pytest.mark.parametrize("kind", [Run, ConceptRun, StudySettings])
def test_every_field_is_documented_and_checked(kind):
    from htaf_snn.cli._options import _documented

    documented, checked = _documented(kind), configuration.constraints(kind)
    for field in fields(kind):
        assert documented[field.name][1].endswith("."), field.name
        assert checked[field.name].expected or kind is StudySettings, field.name  # checks its lists itself


def test_metrics_go_to_tensorboard(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    out = ["--log", "tensorboard", "--out", tmp_path / "run"]
    assert run("train", *SMALL, *out).exit_code == 0
    assert run("train", "--resume", "--epochs", 3, "--out", tmp_path / "run").exit_code == 0
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("val_accuracy")] == [1, 2, 3]
    assert "spike_rate/1" in events.Tags()["scalars"]
    assert {"learning_curves.svg", "confusion.svg"} <= {path.name for path in (tmp_path / "run").iterdir()}


def test_help_shows_values_as_they_are_typed():
    shown = " ".join(run("train", "--help").stdout.split())
    assert "fp32, or bf16" in shown and "auto, cpu or cuda." in shown and "Seed for weights" in shown
    assert "Concept recipe" in run("icbm", "--help").stdout
