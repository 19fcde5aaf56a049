"""Studies that vary any field of a run, and their maps."""

import json
import shlex

import numpy as np
import pytest
from commands import run

from htaf_snn.compare import Settings, Study, findings, maps, report, selection
from htaf_snn.configuration import AXES, SHARED

SMALL = {"epochs": 1, "train_fraction": 0.1, "width": 8}
GRID = {"n_time_bins": (3, 5), "neuron": ("lif", "leaky(beta=0.5, threshold=0.8)")}


def test_arms_are_compared_at_each_value():
    settings = Settings.of(surrogates=["htaf", "atan"], axis=GRID, seeds=2)
    assert settings.arms() == [("htaf", "none", 0.0, ""), ("atan", "none", 0.0, "")]
    assert len(settings.places()) == 4 and len(settings.trials()) == 2 * 4 * 2
    found = {(one.place, one.run.n_time_bins, one.run.neuron) for one in settings.trials()}
    assert found == {(f"n_time_bins={t}, neuron={n}", t, n) for t in GRID["n_time_bins"] for n in GRID["neuron"]}


def test_the_values_are_compared_where_nothing_else_is():
    settings = Settings.of(surrogates=["htaf"], axis={"neuron": GRID["neuron"]}, seeds=1)
    assert settings.places() == [""]
    assert [selection.label(arm) for arm in settings.arms()] == [f"htaf, neuron={name}" for name in GRID["neuron"]]
    assert [one.run.neuron for one in settings.trials()] == [*GRID["neuron"]]


def test_settings_with_an_axis_are_read_and_repeated():
    settings = Settings.of(surrogates=["htaf"], axis=GRID)
    assert Settings.of(**json.loads(json.dumps(settings.as_dict()))) == settings
    words = shlex.split(report.command(settings))
    assert "--axis=n_time_bins=3,5" in words and "--axis=neuron=lif,leaky(beta=0.5, threshold=0.8)" in words
    other = Settings.of(surrogates=["htaf"], axis={"n_time_bins": (3, 5)})
    assert other.changes(settings)[0].startswith("axis: expected {'n_time_bins': (3, 5), 'neuron'")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"axis": {"n_time_bin": (1, 2)}}, "^axis: expected one of .*got 'n_time_bin'; did you mean n_time_bins"),
        ({"axis": {"model": ("mlp",)}}, "^axis: expected one of"),
        ({"axis": {"n_time_bins": (3, 3)}}, "^axis: expected different values of n_time_bins"),
        ({"axis": {"n_time_bins": ()}}, "^axis: expected fields of a run"),
        ({"axis": {"n_time_bins": 3}}, "^axis: expected fields of a run"),
        ({"axis": {"n_time_bins": (3, 0)}}, "^n_time_bins: expected an integer of at least 1, got 0"),
        (
            {"axis": {"n_time_bins": (3, 5)}, "n_time_bins": 4},
            "^axis: expected n_time_bins only here or only by itself",
        ),
        ({"axis": {"neuron": ("lif", "liff")}}, "liff"),
    ],
)
def test_wrong_axes(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        Study(tmp_path / "new", **settings)
    assert not (tmp_path / "new").exists()


def test_the_command_takes_several_axes(tmp_path):
    options = ("--surrogates", "htaf", "--seeds", "1", "--epochs", "1", "--train-fraction", "0.1", "--width", "8")
    axes = ("--axis", "n-time-bins=3,5", "--axis", "neuron=lif,leaky(beta=0.5, threshold=0.8)")
    result = run("compare", *options, *axes, "--json", "--out", str(tmp_path / "study"))
    rows = json.loads(result.stdout)
    assert [row["variant"] for row in rows] == [
        f"n_time_bins={t}, neuron={n}" for t in GRID["n_time_bins"] for n in GRID["neuron"]
    ]
    for wrong, words in (("n_time_bins", "expected NAME=A,B, got"), ("n_time_bins=3", "with a new name each time")):
        result = run("compare", *axes, "--axis", wrong, "--out", str(tmp_path / "new"))
        assert result.exit_code == 2 and words in result.stderr


def test_a_study_over_time_steps_is_reported(tmp_path):
    axis = {"n_time_bins": (3, 5)}
    study = Study(tmp_path, surrogates=["htaf", "atan"], axis=axis, slopes=[0.5, 2.0], seeds=1, **SMALL)
    study.work()
    study.report()
    assert [row["place"] for row in study.table() if row["surrogate"] == "htaf" and row["slope"] == 2.0] == [
        "n_time_bins=3", "n_time_bins=5",
    ]  # fmt: skip
    names = {path.stem for path in (tmp_path / "figures").iterdir()}
    assert "slope-and-n_time_bins" in names
    page = (tmp_path / "report.html").read_text()
    assert "n_time_bins=3" in page and "at the same slope, depth, n_time_bins and learning rate" in page


def test_maps_hold_the_means_of_what_is_not_shown():
    settings = Settings.of(
        surrogates=["htaf", "atan"], axis={"n_time_bins": (5, 3)}, slopes=[2.0, 0.5], depths=[1, 2], seeds=1
    )
    values = {"slope": (0.5, 2.0), "depth": (1, 2), "n_time_bins": (3, 5)}
    assert maps.varied(settings) == values
    rows = [
        {"surrogate": "htaf", "anneal": "none", "identity": 0.0, "variant": "", "place": f"n_time_bins={bins}",
         "slope": slope, "lr": 1e-3, "depth": depth, "mean": slope + 10 * depth + 100 * bins}
        for slope in values["slope"] for depth in values["depth"] for bins in values["n_time_bins"]
        if (slope, depth) != (2.0, 2)
    ]  # fmt: skip
    arm = settings.arms()[0]
    found = maps.means(settings, rows, arm, ("slope", "depth"), lambda row: row["mean"])
    np.testing.assert_allclose(found, [[410.5, 420.5], [412.0, np.nan]])
    found = maps.means(settings, rows, arm, ("depth", "n_time_bins"), lambda row: row["mean"])
    np.testing.assert_allclose(found, [[311.25, 511.25], [320.5, 520.5]])


def test_every_field_can_be_an_axis_but_those_that_are_not_compared():
    assert set(SHARED) - set(AXES) == {"model", "data_root", "device", "folds"}
    assert {"place", "variant"} <= {*findings.COLUMNS}
