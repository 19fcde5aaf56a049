"""Studies that vary fields of a run, and their maps."""

import json
import shlex

import numpy as np
import pytest
from commands import run

from htaf_snn.compare import Settings, Study, maps, report, selection
from htaf_snn.compare.entries import key_of
from htaf_snn.configuration import AXES, SHARED
from htaf_snn.configuration.columns import COLUMNS

SMALL = {"epochs": 1, "train_fraction": 0.1, "width": 8}
GRID = {"n_time_bins": (3, 5), "neuron": ("lif", "lif_box(learn=('v_th',), v_th=0.8)")}


def test_arms_are_compared_at_each_value():
    settings = Settings.of(surrogates=["htaf", "atan"], axis=GRID, seeds=2)
    assert settings.arms() == [("htaf", "none", 0.0, ""), ("atan", "none", 0.0, "")]
    assert len(settings.places()) == 4 and len(settings.trials()) == 2 * 4 * 2
    named = {(one.place, one.run.n_time_bins, one.run.neuron) for one in settings.trials()}
    assert named == {(f"n_time_bins={t}, neuron={n}", t, n) for t in GRID["n_time_bins"] for n in GRID["neuron"]}


def test_the_values_are_compared_where_nothing_else_is():
    settings = Settings.of(surrogates=["htaf"], axis={"neuron": GRID["neuron"]}, seeds=1)
    assert settings.places() == [""]
    assert [selection.label(arm) for arm in settings.arms()] == [f"htaf, neuron={name}" for name in GRID["neuron"]]
    assert [one.run.neuron for one in settings.trials()] == [*GRID["neuron"]]


def test_settings_with_an_axis_are_read_and_repeated():
    settings = Settings.of(surrogates=["htaf"], axis=GRID)
    assert Settings.of(**json.loads(json.dumps(settings.as_dict()))) == settings
    words = shlex.split(report.command(settings))
    assert "--axis=n_time_bins=3,5" in words and f"--axis=neuron={','.join(GRID['neuron'])}" in words
    other = Settings.of(surrogates=["htaf"], axis={"n_time_bins": (3, 5)})
    assert other.changes(settings)[0].startswith("axis: expected {'n_time_bins': (3, 5), 'neuron'")


def test_the_texts_of_neurons_are_alike():
    axis = {"neuron": ("leaky(threshold=.5,beta=0.9)", "lif_box(v_th=0.8,  learn=('v_th',))")}
    settings = Settings.of(surrogates=["htaf"], axis=axis)
    assert settings.axis["neuron"] == ("leaky(beta=0.9, threshold=0.5)", "lif_box(learn=('v_th',), v_th=0.8)")
    assert selection.label(settings.arms()[0]) == "htaf, neuron=leaky(beta=0.9, threshold=0.5)"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"axis": {"n_time_bin": (1, 2)}}, "^axis: expected one of .*got 'n_time_bin'; did you mean n_time_bins"),
        ({"axis": {"model": ("mlp",)}}, "^axis: expected one of"),
        ({"axis": {"neuron": ("lif(v_th=1, learn=())", "lif(v_th=1,learn=())")}}, "^axis: expected different values"),
        ({"axis": {"neuron": ("lif(v_th=1, learn=())", "lif(learn=(),v_th=1)")}}, "^axis: expected different values"),
        ({"axis": {"n_time_bins": (3, 3)}}, "^axis: expected different values of n_time_bins"),
        ({"axis": {"n_time_bins": ()}}, "^axis: expected fields of a run"),
        ({"axis": {"n_time_bins": 3}}, "^axis: expected fields of a run"),
        ({"axis": {"n_time_bins": (3, 0)}}, "^axis: n_time_bins: expected an integer of at least 1, got 0"),
        ({"axis": {"width": (8, 0)}}, "^axis: width: expected an integer >= 1, got 0"),
        ({"axis": {"width": (8, 16)}, "width": 32}, "^axis: expected width only here or only by itself"),
        ({"axis": {"lr": (1e-3, 1e-2)}}, "^axis: expected no lr, which other settings vary; use --lrs"),
        (
            {"axis": {"threshold": (0.5, 1)}},
            r"got 'threshold'; .* such as neuron=leaky\(beta=0.9,threshold=0.5\),leaky\(beta=0.9,threshold=1\)$",
        ),
        (
            {"axis": {"n_time_bins": (3, 5)}, "n_time_bins": 4},
            "^axis: expected n_time_bins only here or only by itself",
        ),
        ({"axis": {"neuron": ("lif", "liff")}}, "^neuron: expected one of .*liff"),
    ],
)
def test_wrong_axes(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        Study(tmp_path / "new", **settings)
    assert not (tmp_path / "new").exists()


def test_the_width_is_an_axis():
    settings = Settings.of(surrogates=["htaf", "atan"], axis={"width": (8, 16)}, depths=[1, 2], seeds=1)
    hidden = [(trial.place, trial.run.hidden) for trial in settings.trials() if trial.surrogate == "htaf"]
    assert hidden == [("width=8", (8,)), ("width=16", (16,)), ("width=8", (8, 8)), ("width=16", (16, 16))]


@pytest.mark.thorough
@pytest.mark.usefixtures("workers_here")
def test_the_command_takes_several_axes(tmp_path):
    options = ("--surrogates", "htaf", "--seeds", "1", "--epochs", "1", "--train-fraction", "0.1", "--width", "8")
    axes = ("--axis", "n-time-bins=3,5", "--axis", f"neuron={','.join(GRID['neuron'])}")
    result = run("compare", *options, *axes, "--json", "--out", str(tmp_path / "study"))
    rows = json.loads(result.stdout)
    assert [row["variant"] for row in rows] == [
        f"n_time_bins={t}, neuron={n}" for t in GRID["n_time_bins"] for n in GRID["neuron"]
    ]
    values = json.loads(run("compare", *options, "--axis", "compiled=false", "--axis", "clip_gradient=none,1", "--json",
                            "--out", str(tmp_path / "none")).stdout)  # fmt: skip
    assert [row["variant"] for row in values] == [f"clip_gradient={v}, compiled=False" for v in (None, 1.0)]
    for wrong, words in (("n_time_bins", "expected NAME=A,B, got"), ("n_time_bins=3", "with a new name each time")):
        result = run("compare", *axes, "--axis", wrong, "--out", str(tmp_path / "new"))
        assert result.exit_code == 2 and words in result.stderr


@pytest.mark.thorough
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
    means = maps.means(settings, rows, ("slope", "depth"), lambda row: row["mean"])
    np.testing.assert_allclose(means, [[410.5, 420.5], [412.0, np.nan]])
    means = maps.means(settings, rows, ("depth", "n_time_bins"), lambda row: row["mean"])
    np.testing.assert_allclose(means, [[311.25, 511.25], [320.5, 520.5]])


def test_a_single_arm_is_mapped_over_its_axes():
    axis = {"n_time_bins": (3, 5), "batch_size": (8, 16), "neuron": ("lif", "iaf")}
    settings = Settings.of(surrogates=["htaf"], axis=axis, seeds=1)
    rows = [
        {"surrogate": "htaf", "anneal": "none", "identity": 0.0, "variant": variant, "place": "", "slope": 1.0,
         "lr": 1e-3, "depth": 2, "mean": 0.5, "gradient_ratio": 1.0}
        for *_, variant in settings.arms()
    ]  # fmt: skip
    (figure,) = maps.all_maps(settings, rows)
    assert figure.title == "Batch_size and n_time_bins"
    assert {point["arm"] for point in figure.data} == {"htaf, neuron=lif", "htaf, neuron=iaf"} and len(figure.data) == 8


def test_a_twin_alone_has_no_maps():
    settings = Settings.of(model="dhn", surrogates=["relu"], lrs=[1e-3, 1e-2], depths=[1, 2], seeds=1)
    assert maps.all_maps(settings, [{"surrogate": "relu"}]) == []


def test_equal_axes_are_one_study():
    one = Settings.of(surrogates=["htaf"], axis={"train_fraction": (1, 0.5), "n_time_bins": (3, 5)}, seeds=1)
    other = Settings.of(surrogates=["htaf"], axis={"n_time_bins": (3, 5), "train_fraction": (1.0, 0.5)}, seeds=1)
    assert one == other and one.arms() == other.arms()
    assert [key_of(trial.config()) for trial in one.trials()] == [key_of(trial.config()) for trial in other.trials()]


def test_every_field_can_be_an_axis_but_those_that_are_not_compared():
    assert set(SHARED) - set(AXES) == {
        "model", "data_root", "device", "folds", "val_fraction", "resize", "augment",
    }  # fmt: skip
    assert {"place", "variant"} <= {*COLUMNS}
