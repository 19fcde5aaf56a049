"""Studies that spend less on what selects: successive halving, and presets."""

import json

import optuna
import pytest
from commands import run

from htaf_snn.compare import PRESETS, Settings, Study, preset, selection, trial

SMALL = {"surrogates": ["htaf", "atan"], "epochs": 4, "seeds": 2, "select": "val", "select_seeds": 1}
GRID = {"lrs": [1e-4, 1e-3, 1e-2], "slopes": [0.5, 1.0]}


@pytest.fixture
def study(tmp_path):
    return Study(tmp_path, **SMALL, slopes=[1.0], lrs=[10.0**-k for k in range(1, 9)], budget="halving")


ARM = (*selection.SETTING, *selection.ARM)


def reached(study, scores):
    """Return the epoch after which the next training, with these scores, is to end; None if it is not."""
    (entry,) = study.queue.take(study.wanted)
    ends = (epoch for epoch, score in enumerate(scores, 1) if study.queue.is_to_end(entry, ARM, epoch, score))
    epoch = next(ends, None)
    study.queue.give_up(entry, epoch or len(scores))
    return epoch


def test_the_best_third_goes_on(study):
    assert reached(study, [0.5] * 9) is None  # nothing to compare it with
    assert reached(study, [0.4] * 9) == 1
    assert reached(study, [0.6, 0.6, 0.3, 0.9]) == 3  # of those after 3 epochs it is the worse one
    assert reached(study, [0.7, 0.1, 0.8] + [0.1] * 6) == 9
    for _ in range(4):
        reached(study, [0.1])
    assert reached(study, [0.05] * 9) is None  # the first of the other arm


def test_an_interrupted_training_counts_once(study):
    (entry,) = study.queue.take(study.wanted)
    assert not study.queue.is_to_end(entry, ARM, 1, 0.9)
    study.queue.requeue(entry)
    (other,) = study.queue.take(study.wanted)
    assert other.key != entry.key and not study.queue.is_to_end(other, ARM, 1, 0.5)


def test_a_trial_that_others_run_again_is_left_to_them(study):
    """As after a pause that was longer than the heartbeats allow."""
    (entry,) = study.queue.take(study.wanted)
    study.queue.requeue(entry)
    study.queue.finish(entry, {"test_accuracy": 1.0})
    study.queue.fail(entry, "late", "")
    study.queue.give_up(entry, 3)
    assert study.queue.entries()[entry.key].state == "waiting"


def test_a_locked_database_is_tried_again(study, monkeypatch):
    (entry,) = study.queue.take(study.wanted)
    right, calls = study.queue._storage.set_trial_state_values, []

    def refused(*given):
        calls.append(given)
        if len(calls) < 3:
            raise optuna.exceptions.StorageInternalError("database is locked")
        return right(*given)

    monkeypatch.setattr(study.queue._storage, "set_trial_state_values", refused)
    study.queue.requeue(entry)
    assert (len(calls), study.queue.entries()[entry.key].state) == (3, "waiting")


@pytest.fixture
def scored(monkeypatch):
    """Trainings that take no time, whose accuracy is best at a learning rate of 1e-3; one of them fails."""

    def accuracy(one):
        return {1e-4: 0.3, 1e-3: 0.9, 1e-2: 0.6}[one.run.lr] + 0.01 * one.slope

    def quick(one, processes=None, is_to_end=lambda epoch, score: False):
        if one.run.lr == 1e-2 and one.slope == 1.0:
            raise FloatingPointError("the loss is nan")
        for epoch in range(1, one.run.epochs):
            if is_to_end(epoch, accuracy(one)):
                raise trial.StoppedError(epoch)
        ran.append((one.surrogate, one.run.lr, one.slope, one.run.seed))
        return {"test_accuracy": accuracy(one), "val_accuracy": accuracy(one)}

    ran = []
    monkeypatch.setattr(trial, "run", quick)
    return ran


def test_what_halving_ends_is_chosen_nowhere(tmp_path, scored):
    study = Study(tmp_path, **SMALL, **GRID, budget="halving")
    study.work()
    counts = study.counts()
    assert counts["stopped"] > 0 and counts["failed"] == 2 and counts["finished"] + counts["stopped"] == 10
    assert study.add_missing()
    study.work()
    assert [ran for ran in scored if ran[3] == 1] == [("htaf", 1e-3, 1.0, 1), ("atan", 1e-3, 1.0, 1)]
    assert len(study.results()) == len(scored) == study.counts()["finished"]
    assert {entry.stored["epoch"] for entry in study.queue.entries().values() if entry.state == "stopped"} <= {1, 3}
    before = len(scored)
    Study(tmp_path).work()
    assert len(scored) == before


@pytest.mark.thorough
def test_what_halving_saves_is_told(tmp_path):
    small = {"surrogates": ["htaf"], "lrs": [1e-2, 1e-3, 1e-4], "train_fraction": 0.1, "width": 8, "epochs": 4}
    study = Study(tmp_path, **SMALL | small, budget="halving")
    study.run(workers=1, progress=False)
    epochs = [entry.stored["epoch"] for entry in study.queue.entries().values() if entry.state == "stopped"]
    assert epochs  # the network learns little at the smallest rate
    text = (
        f"{len(epochs)} that select were ended early by successive halving, which saved {4 * len(epochs) - sum(epochs)}"
    )
    assert text in study.report().read_text()


@pytest.mark.parametrize("settings", [
    {}, {"select": "val", **GRID}, {"select": "val", "select_seeds": 2, **GRID},
])  # fmt: skip
def test_halving_needs_one_seed_that_selects(settings):
    with pytest.raises(ValueError, match=r"^budget: expected full without select=val and select_seeds=1"):
        Settings.of(budget="halving", **settings)


def test_halving_needs_epochs_to_end():
    with pytest.raises(
        ValueError, match=r"^budget: expected full with epochs=1, as nothing is left to end early, got halving"
    ):
        Settings.of(budget="halving", **SMALL | GRID | {"epochs": 1})


def test_a_training_is_ended_after_its_epoch():
    settings = Settings.of(surrogates=["htaf"], seeds=1, epochs=3, width=8, train_fraction=0.1, n_time_bins=3)
    seen = []
    with pytest.raises(trial.StoppedError, match="ended after epoch 2") as error:
        trial.run(settings.trials()[0], is_to_end=lambda epoch, score: seen.append(score) or epoch == 2)
    assert error.value.epoch == 2 and len(seen) == 2 and all(0 <= score <= 1 for score in seen)
    # The last epoch is no early end.
    assert trial.run(settings.trials()[0], is_to_end=lambda epoch, score: epoch == 3)["test_accuracy"] >= 0


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_studies(name):
    settings = Settings.of(**preset(name))
    settings.check()
    assert settings.select == "val" and settings.seeds - settings.selecting_seeds >= 3


def test_options_replace_those_of_a_preset(tmp_path):
    small = ("--epochs", "1", "--seeds", "1", "--select", "none", "--slopes", "1", "--lrs", "1e-3", "--width", "8")
    result = run("compare", "--preset", "neuron", "--out", str(tmp_path / "a"), *small, "--select-seeds", "1")
    assert result.exit_code == 2 and "--select-seeds: expected none without select=val" in result.stderr
    result = run("compare", "--preset", "depths", "--out", str(tmp_path / "a"))
    assert result.stderr.startswith("error: --preset: expected one of depth, neuron, zenke-vogels-2021, got 'depths'")
    Study(tmp_path / "b", **preset("neuron") | {"seeds": 4})
    assert json.loads((tmp_path / "b" / "study.json").read_text())["seeds"] == 4
