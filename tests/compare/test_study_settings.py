"""The settings of studies: what is refused, what extends a study, and what makes it the same one."""

import shlex

import pytest
import torch
from commands import run
from studies import SMALL, one_trial

from htaf_snn.compare import Study, queue, report, stacking


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_device_is_reported_at_the_start(tmp_path):
    with pytest.raises(ValueError, match=r"^device: expected a usable GPU"):
        Study(tmp_path / "study", device="cuda")
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"surrogates": ["hat"]}, ValueError, "hat"),
        ({"surrogates": ["brian.atan"]}, ValueError, "^library: expected one of snntorch"),
        ({"surrogates": []}, ValueError, "^surrogates: expected one value or more"),
        ({"surrogates": ["htaf", "htaf"]}, ValueError, "^surrogates: expected different values"),
        (
            {"surrogates": ["atan", "superspike", "fast_sigmoid"]},
            ValueError,
            "^surrogates: expected each function once, got superspike and fast_sigmoid, which are the same$",
        ),
        ({"surrogates": ["snntorch.LSO"]}, (ValueError, TypeError), "."),
        ({"dataset": "imagenet"}, ValueError, r"^dataset: expected one of \['asldvs'"),
        ({"slopes": [0.0]}, ValueError, "^slopes: expected positive finite numbers"),
        ({"lrs": ["fast"]}, ValueError, "^lrs: expected positive"),
        ({"depths": [0]}, ValueError, "^depths, number 1: expected an integer >= 1, got 0"),
        ({"seeds": 0}, ValueError, "^seeds: expected an integer >= 1, got 0"),
        ({"folds": 1}, ValueError, "^folds: expected None or an integer of at least 2, got 1"),
        ({"device": "tpu"}, ValueError, "^device: expected one of auto, cpu, cuda, got 'tpu'"),
        ({"match": "size"}, ValueError, "^match: expected one of none"),
        ({"match": "area", "surrogates": ["straight_through"]}, ValueError, "positive finite area"),
        ({"colour": "red"}, TypeError, "^colour: expected one of .*, got an unknown setting"),
        ({"model": "dhn", "surrogates": ["htaf"], "alpha_end": 4.0}, ValueError, "^alpha_end: 4.0 has no effect"),
    ],
)
def test_wrong_settings_leave_nothing_behind(tmp_path, settings, error, message):
    with pytest.raises(error, match=message):
        Study(tmp_path / "new", **settings)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("surrogates", [["htaf", "snntorch.atan"], ["snntorch.atan", "htaf"]])
def test_another_librarys_surrogate_may_be_at_any_place(tmp_path, surrogates):
    assert Study(tmp_path, surrogates=surrogates, seeds=1, **SMALL).counts()["waiting"] == 2


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"^out: expected a new folder or a study's, got .* contains config\.json"):
        Study(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.thorough
def test_more_seeds_extend_a_study(tmp_path):
    Study(tmp_path, surrogates=["htaf", "atan"], seeds=1, **SMALL).run(workers=1, progress=False)
    longer = Study(tmp_path, surrogates=["htaf", "atan"], seeds=3, **SMALL)
    assert longer.counts() == {"waiting": 4, "running": 0, "finished": 2, "failed": 0}
    assert Study(tmp_path).settings.seeds == 3
    expected = (
        r"seeds: expected at least 3, as the number can only grow, got 2; htaf-snn report .* shows what is there$"
    )
    with pytest.raises(ValueError, match=expected):
        Study(tmp_path, surrogates=["htaf", "atan"], seeds=2, **SMALL)
    with pytest.raises(ValueError, match="a study grows by seeds only; for another surrogate begin a study in another"):
        Study(tmp_path, surrogates=["htaf", "triangle"], seeds=3, **SMALL)


@pytest.mark.parametrize(("name", "value"), [("loss", "tet"), ("optimizer", "sgd"), ("clip_gradient", 1.0)])
def test_what_a_stack_does_not_heed_is_refused(name, value):
    with pytest.raises(stacking.StackingError, match=f"^{name}: expected .* in a stack of seeds, got {value!r}"):
        stacking.run([one_trial(seed=seed, **SMALL, **{name: value}) for seed in (0, 1)])


@pytest.mark.thorough
def test_a_study_takes_the_fields_of_a_run(tmp_path):
    fields = {"neuron": "lif(v_th=0.3)", "optimizer": "adamw", "weight_decay": 0.1, "clip_gradient": 1.0}
    study = Study(tmp_path, surrogates=["htaf"], seeds=1, keep="best", **SMALL | {"epochs": 2}, **fields)
    study.work()
    [entry] = study.results()
    assert entry["config"] | fields == entry["config"]
    command = report.command(study.settings)
    assert "--clip-gradient 1 " in command + " " and "--keep best" in command and "--precision" not in command
    options = shlex.split(command)[4:]
    assert run("compare", "--out", tmp_path, *options).exit_code == 0


def test_a_number_is_the_same_as_an_integer(tmp_path):
    settings = {"surrogates": ["htaf"], "seeds": 1, **SMALL}
    Study(tmp_path, clip_gradient=1, weight_decay=0, **settings)
    again = Study(tmp_path, clip_gradient=1.0, weight_decay=0.0, **settings)
    assert again.settings.shared.clip_gradient == 1.0 and len(again.queue.entries()) == 1


def test_the_place_of_the_data_is_kept_where_it_is_not_given(tmp_path, recordings):
    settings = {"dataset": "nmnist", "surrogates": ["htaf"], "seeds": 1, **SMALL}
    Study(tmp_path, data_root=str(recordings), device="cpu", **settings)
    shared = Study(tmp_path, **settings).settings.shared
    assert (shared.data_root, shared.device) == (str(recordings), "cpu")


def test_a_study_is_the_same_wherever_its_data_are(tmp_path, recordings):
    (tmp_path / "data").symlink_to(recordings)
    settings = {"dataset": "nmnist", "surrogates": ["htaf"], "seeds": 1, **SMALL}
    study = Study(tmp_path / "out", data_root=str(recordings), **settings)
    study.work()
    assert Study(tmp_path / "out", data_root=str(tmp_path / "data"), **settings).counts()["finished"] == 1


def test_a_study_of_an_earlier_version_says_what_to_do(tmp_path):
    study = Study(tmp_path, surrogates=["htaf"], seeds=1, **SMALL)
    queue._add(study.queue._study, {"dataset": "saccade-digits", "width": 8, "depth": 2})
    with pytest.raises(
        ValueError, match="expected a study of this version, got an earlier one's; repeat htaf-snn compare"
    ):
        Study(tmp_path)
