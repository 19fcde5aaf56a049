"""Studies whose arms are each compared at their own learning rate and slope, as validation chooses them."""

import json

import pytest
import torch
from studies import one_trial, workers_here

from htaf_snn.compare import Settings, Study, findings, report, selection
from htaf_snn.compare import trial as trial_module

SMALL = {"model": "dhn", "width": 8, "epochs": 1, "batch_size": 256}
SELECTING = {"anneal": ["none", "hardness"], "lrs": [1e-3, 1e-2], "slopes": [0.5, 1.0], "select": "val"}

RESULT = {
    "val_accuracy": 0.5,
    "test_accuracy": 0.5,
    "gradient_layers": [1.0, 1.0],
    "stretch": 1.0,
    "gain": 1.0,
    "times": {},
}


def trial(accuracies, seed=0, surrogate="htaf", anneal="none", slope=1.0, lr=1e-3, depth=2):
    arm = {"surrogate": surrogate, "anneal": anneal, "identity": 0.0, "variant": ""}
    config = {"dataset": "digits", "depth": depth, "place": "", **arm}
    config |= {"slope": slope, "lr": lr}
    val, test = accuracies
    return {"config": config | {"seed": seed}, "result": {"val_accuracy": val, "test_accuracy": test}}


def test_an_arm_is_compared_where_validation_is_best_and_test_figures_do_not_choose():
    settings = Settings.of(surrogates=["htaf", "atan"], lrs=[1e-3, 1e-2], seeds=2, select="val")
    trials = [trial((0.5, 0.9), seed) for seed in (0, 1)] + [trial((0.6, 0.1), seed, lr=1e-2) for seed in (0, 1)]
    assert selection.chosen(settings, trials) == {("digits", 2, "", "htaf", "none", 0.0, ""): (1.0, 1e-2)}
    assert [one["config"]["lr"] for one in selection.at_chosen(settings, trials)] == [1e-2, 1e-2]
    every = Settings.of(surrogates=["htaf", "atan"], lrs=[1e-3, 1e-2], seeds=2)
    assert selection.at_chosen(every, trials) == trials


def test_a_place_with_a_failed_seed_is_not_chosen():
    settings = Settings.of(lrs=[1e-3, 1e-2], seeds=2, select="val")
    trials = [trial((0.5, 0.5), seed) for seed in (0, 1)] + [trial((0.9, 0.9), 0, lr=1e-2)]
    assert selection.chosen(settings, trials) == {("digits", 2, "", "htaf", "none", 0.0, ""): (1.0, 1e-3)}


def test_only_the_seeds_that_select_count():
    settings = Settings.of(lrs=[1e-3, 1e-2], seeds=2, select="val", select_seeds=1)
    trials = [trial((0.5, 0.5)), trial((0.6, 0.5), lr=1e-2), trial((1.0, 0.5), seed=1)]
    assert selection.chosen(settings, trials) == {("digits", 2, "", "htaf", "none", 0.0, ""): (1.0, 1e-2)}
    compared = [*trials, trial((0.1, 0.7), seed=1, lr=1e-2)]
    assert selection.at_chosen(settings, compared) == compared[-1:]  # the choice favours the seed that selects


def test_the_plateau_is_a_row_of_learning_rates_around_the_best():
    settings = Settings.of(lrs=[1e-4, 1e-3, 2e-3, 4e-3, 1e-1], select="val")
    places = {(1.0, 1e-4): 0.9, (1.0, 1e-3): 0.5, (1.0, 2e-3): 0.89, (1.0, 4e-3): 0.9, (0.5, 1e-1): 0.9}
    assert selection.plateau(settings, places | {(1.0, 4e-3): 0.905}) == (2.0, False)
    assert selection.plateau(settings, places | {(1.0, 1e-3): 0.95}) == (1.0, False)
    assert selection.plateau(settings, places | {(1.0, 1e-4): 0.95}) == (1.0, True)
    assert selection.plateau(settings, {}) == (None, None)


def test_combinations_without_effect_are_left_out():
    settings = Settings.of(
        model="bnn", surrogates=["htaf", "sigmoid", "snntorch.atan", "relu"], anneal=["none", "hardness", "alpha"],
        slopes=[0.5, 2.0], alpha_end=8.0, weight_surrogate="ede", seeds=1,
    )  # fmt: skip
    combined = ("none", "hardness", "alpha")
    expected = [("htaf", anneal, 0.0, "") for anneal in combined]
    expected += [("sigmoid", anneal, 0.0, "") for anneal in combined[:2]]
    assert settings.arms() == [*expected, ("snntorch.atan", "none", 0.0, ""), ("relu", "none", 0.0, "")]
    both = Settings.of(surrogates=["htaf"], identity=[0, 1], seeds=1)
    assert both.arms() == [("htaf", "none", 0.0, ""), ("htaf", "none", 1.0, "")]
    assert [config.run.identity for config in both.trials()] == [0.0, 1.0]
    assert [config.slope for config in settings.trials() if config.surrogate == "relu"] == [1.0]
    for config in settings.trials():
        assert (config.run.alpha_end == 8.0) == (config.run.anneal == "alpha")
        assert (config.run.weight_surrogate == "ede") == (config.surrogate != "relu")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study of three arms, of which one is the twin, that selects with one seed of three."""
    settings = {"surrogates": ["htaf", "relu"], "seeds": 3, "select_seeds": 1, **SELECTING, **SMALL}
    study = Study(tmp_path_factory.mktemp("study"), **settings)
    assert study.counts()["waiting"] == 10
    with workers_here():
        counts = study.run(workers=1, progress=False)
    assert counts == {"waiting": 0, "running": 0, "finished": 16, "failed": 0}
    return study


@pytest.mark.thorough
def test_the_other_seeds_are_trained_at_the_chosen_places_alone(finished):
    chosen = selection.chosen(finished.settings, finished.results())
    settings_arms = [("htaf", "none", 0.0, ""), ("htaf", "hardness", 0.0, ""), ("relu", "none", 0.0, "")]
    assert set(chosen) == {("digits", 2, "", *arm) for arm in settings_arms}
    others = [entry["config"] for entry in finished.results() if entry["config"]["seed"]]
    assert len(others) == 6
    for config in others:
        arm = selection.pick(config, (*selection.SETTING, *selection.ARM))
        assert chosen[arm] == selection.pick(config, selection.TUNED)
    again = Study(finished.out)
    assert again.run(workers=1, progress=False) == finished.counts()


def test_the_table_has_one_row_per_arm(finished):
    rows, trials = finished.table(), finished.results()
    assert [(row["surrogate"], row["anneal"], row["seeds"]) for row in rows] == [
        ("htaf", "none", 2), ("htaf", "hardness", 2), ("relu", "none", 2),
    ]  # fmt: skip
    assert rows[0]["claim"] == "baseline"
    assert all(row["plateau"] in (1.0, 10.0) for row in rows)
    assert (rows[2]["stretch"], rows[2]["cosine_end"], rows[2]["at_zero"], rows[2]["slope"]) == (None, None, None, 1.0)
    for row in rows:
        own = [entry["result"] for entry in trials if selection.pick(entry["config"], findings.KEY) == tuple(
            row[name] for name in findings.KEY)]  # fmt: skip
        accuracies = [result["test_accuracy"] for result in own]
        assert row["mean"] == pytest.approx(sum(accuracies[1:]) / 2)
        assert row["hardening_gap"] == 0.0
    assert len(findings.grid(trials)) == 10
    assert set(findings.ranks(finished.settings, trials)[0]) == {"htaf", "htaf, hardness annealed", "relu"}


@pytest.mark.thorough
def test_the_page_says_how_arms_were_chosen(finished):
    page = finished.report().read_text()
    assert "the slope and the learning rate of its best validation accuracy, with 1 of the seeds, which are not" in page
    assert "Accuracy over the learning rate" in page and "htaf, hardness annealed" in page
    assert "--select val --select-seeds 1" in page
    results = json.loads((finished.out / "results.json").read_text())
    assert len(results["table"]) == 3 and len(results["grid"]) == 10


def test_a_selection_may_be_changed_afterwards(finished):
    other = Study(finished.out, **finished.settings.as_dict() | {"select": "none", "select_seeds": None})
    assert other.settings.select == "none"
    assert other.counts()["waiting"] == 30 - 16
    Study(finished.out, **finished.settings.as_dict())


def test_gradients_are_measured_before_and_after_the_training(finished):
    for entry in finished.results():
        before, after = entry["result"]["gradient_layers"], entry["result"]["gradient_layers_end"]
        assert len(before) == len(after) == entry["config"]["depth"]
        assert before != after and min(after) > 0


def test_an_annealed_network_is_measured_as_it_begins(finished):
    """That is smooth, and so is the reference with whose gradient its own is compared."""
    first = {}
    for entry in finished.results():
        config = entry["config"]
        if (config["surrogate"], config["slope"], config["lr"], config["seed"]) == ("htaf", 1.0, 1e-3, 0):
            first[config["anneal"]] = entry["result"]
    assert first["none"]["gradient_layers"] != first["hardness"]["gradient_layers"]
    assert [first[anneal]["cosine_start"] for anneal in ("none", "hardness")] == pytest.approx([1, 1])


def test_alpha_ends_where_it_is_told_to_whatever_the_slope():
    config = one_trial(**SMALL, dataset="digits", anneal="alpha", alpha_end=8.0, slope=0.5)
    prepared = trial_module.prepare(config)
    surrogates = [neuron.surrogate for neuron in prepared.model.neurons]
    assert {(own.stretch, own.function.alpha, own.function.hardness) for own in surrogates} == {(0.5, 1.0, 0.0)}
    prepared.before_step(10**6, torch.optim.Adam(prepared.model.parameters()))
    assert {own.stretch * own.function.alpha for own in surrogates} == {8.0}


def test_a_row_without_a_partner_is_no_baseline():
    settings = Settings.of(model="dhn", surrogates=["htaf", "relu"], slopes=[0.5, 2.0], seeds=1, width=4, epochs=1)
    results = [{"config": config.config(), "result": RESULT} for config in settings.trials()]
    claims = {(row["surrogate"], row["slope"]): row["claim"] for row in findings.table(settings, results)}
    assert claims == {("htaf", 0.5): "baseline", ("htaf", 2.0): "baseline", ("relu", 1.0): "not compared"}
    assert findings.ranks(settings, results) == ({}, None)


def test_a_selection_that_still_runs_has_no_report(tmp_path, monkeypatch):
    study = Study(tmp_path, surrogates=["htaf", "atan"], seeds=3, select_seeds=1, **SELECTING, **SMALL)
    results = [{"config": config.config(), "result": RESULT} for config in study.settings.trials()[:2]]
    monkeypatch.setattr(study, "results", lambda: results)
    with pytest.raises(ValueError, match="expected the trials that select to have ended, got 16 waiting of 16; go on"):
        study.report()


def test_trials_of_another_selection_are_left_alone(tmp_path):
    study = Study(tmp_path, surrogates=["htaf"], seeds=3, **SELECTING | {"select": "none"}, **SMALL)
    assert study.counts()["waiting"] == 24
    study = Study(tmp_path, surrogates=["htaf"], seeds=3, select_seeds=1, **SELECTING, **SMALL)
    assert study.counts()["waiting"] == 8
    taken = [study.queue.take(study.wanted)[0] for _ in range(8)]
    assert {entry.config["seed"] for entry in taken} == {0} and study.queue.take(study.wanted) == []


@pytest.mark.thorough
def test_the_second_stage_is_run_too_if_another_machine_added_it(tmp_path):
    settings = {"surrogates": ["htaf"], "seeds": 2, "select_seeds": 1, **SELECTING, **SMALL, "anneal": "none"}
    study = Study(tmp_path, **settings)
    study.work()
    assert study.counts()["finished"] == 4
    other = Study(tmp_path)
    assert other.counts()["waiting"] == 1
    assert study.run(workers=1, progress=False) == {"waiting": 0, "running": 0, "finished": 5, "failed": 0}


def test_a_command_repeats_slopes_exactly():
    settings = Settings.of(slopes=[2**0.5, 0.5])
    assert f"--slopes {2**0.5!r},0.5" in report.command(settings)
