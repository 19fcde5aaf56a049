"""Whatever a network was trained on, `htaf-snn predict` reads; it says what is amiss with a file or a time window."""

import json

import numpy as np
import pytest
from commands import run

from htaf_snn import training
from htaf_snn.evaluation import predict, predictions
from htaf_snn.training import describing
from neuromorphic_datasets import RecordingError

OWN = """
import neuromorphic_datasets as nd


def moves():
    return nd.EventFolder({root!r}, {options})
"""


def rows(label, number, unit=1.0, count=200):
    """Return lines of t x y p of a bar that moves right or left for a tenth of a second."""
    rng = np.random.default_rng(2 * number + label)
    t = np.sort(rng.integers(0, 100_000, count))
    x = (t // 10_000 if label else 9 - t // 10_000) + rng.integers(0, 3, count)
    y, p = rng.integers(0, 8, count), rng.integers(0, 2, count)
    return [f"{a * unit!r} {b} {c} {d}" for a, b, c, d in zip(t.tolist(), x, y, p, strict=True)]


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Return a function that trains on such recordings with options of the folder; it gives the run and the files."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(tmp_path)

    def made(name, text=lambda label, number: "\n".join(rows(label, number)), options="", ending="csv"):
        for label, folder in enumerate(("left", "right")):
            (tmp_path / name / folder).mkdir(parents=True)
            for number in range(12):
                (tmp_path / name / folder / f"{number}.{ending}").write_text(text(label, number))
        (tmp_path / f"{name}_set.py").write_text(OWN.format(root=str(tmp_path / name), options=options))
        source = f"{tmp_path / name}_set.py:moves"
        result = run("train", "--dataset", source, "--hidden", 16, "--epochs", 2, "--out", tmp_path / f"{name}_run")
        assert result.exit_code == 0, result.output
        return tmp_path / f"{name}_run", sorted((tmp_path / name).rglob(f"*.{ending}")), result

    return made


def named(label, number):
    return "t,x,y,p\n" + "\n".join(line.replace(" ", ",") for line in rows(label, number))


def test_files_are_predicted_as_they_were_read_for_the_training(trained):
    def in_ms(label, number):
        return "\n".join(line.replace(" ", ",") for line in rows(label, number, 1e-3))

    out, files, _ = trained("bare", in_ms, 'columns="txyp", time_unit="ms", sensor_size=(12, 8, 2)')
    assert training.folder.read_data(out)["reading"] == {"columns": "txyp", "time_unit": "ms"}
    for options in ((), ("--time-window", 10_000)):
        shown = run("predict", out, *files, *options, "--json")
        assert shown.exit_code == 0, shown.stderr
        answers = [json.loads(line) for line in shown.stdout.splitlines()]
        assert [len(answer["over_time"]) for answer in answers] == [10] * 24
    # A file that names its columns needs no argument, and is answered, too.
    mixed = files[0].with_name("named.csv")
    mixed.write_text(named(0, 0).replace("t,x", "t_us,x"))
    files[0].write_text(in_ms(0, 0))
    with pytest.raises(ValueError, match="expected time_unit 'us'"):
        [*predict(out, mixed)]
    mixed.write_text("t_ms,x,y,p\n" + in_ms(0, 0))
    assert next(predict(out, mixed))["scores"] == next(predict(out, files[0]))["scores"]


def test_faulty_events_are_dropped_as_in_the_training(trained):
    def faulty(label, number):
        return named(label, number) + ("\n99999999,300,1,1" if number == 3 else "")

    with pytest.warns(UserWarning, match="faults dropped: 2"):
        out, files, _ = trained("faulty", faulty, 'on_error="drop", sensor_size=(12, 8, 2)')
    page = files[0].with_name("page.bin")
    page.write_text("\1\1\0\0\1" + "<!DOCTYPE html>" * 40)
    for window in (None, 10_000):
        with pytest.warns(UserWarning, match=r"3\.csv: faults dropped: 1"):
            answers = [*predict(out, *files, time_window=window)]
        assert [len(answer["over_time"]) for answer in answers] == [10] * 24
        with pytest.raises(RecordingError, match=r"page\.bin: \d+ of 121 events are faulty, more than a tenth"):
            [*predict(out, page, time_window=window)]


def test_a_training_says_what_its_data_are(trained):
    out, _, shown = trained("told", named)
    first = shown.stderr.splitlines()[0]
    assert first == (
        "24 recordings of 2 classes (left 12, right 12), 12 × 8 pixels, 0.097 to 0.1 s, 200 events each; "
        "training 17, validation 2, test 5"
    )
    data = training.folder.read_data(out)
    assert data["samples"] == [17, 2, 5] and data["events"] == [200, 200, 200] and data["reading"] == {}
    assert [sum(part) for part in zip(*data["samples_by_class"].values(), strict=True)] == [17, 2, 5]
    low, median, high = data["duration_us"]
    assert 90_000 < low < median < high < 100_000


def test_a_transform_of_the_training_is_not_forgotten(trained):
    out, files, _ = trained("turned", named, "transform=lambda events: events")
    with pytest.warns(UserWarning, match=r"^the training data were transformed by moves\.<locals>\.<lambda>; predict"):
        assert len([*predict(out, *files[:2])]) == 2


def test_a_class_that_a_part_lacks_is_named():
    data = {
        "shape": (2, 8, 12),
        "classes": [*"abcdefg"],
        "samples": [20, 0, 5],
        "samples_by_class": {name: [0 if name == "b" else 4, 0, int(name < "f")] for name in "abcdefg"},
        "duration_us": [2e6, 3e6, 12.4e6],
        "events": [7.0, 8.5, 9.0],
    }
    assert describing.lines(data) == [
        "25 recordings of 7 classes (1 to 5 each), 12 × 8 pixels, 2 to 12 s, 7 to 9 events each; training 20, test 5",
        "warning: no sample of b in the training part",
        "warning: no sample of f, g in the test part",
    ]


def test_a_training_on_images_says_what_they_are(capsys, tmp_path):
    training.train(training.Run(model="dhn", hidden=(4,), epochs=1, batch_size=512), tmp_path / "run")
    assert capsys.readouterr().err.splitlines()[0] == (
        "1797 images of 10 classes (174 to 183 each), 8 × 8 pixels; training 1293, validation 144, test 360"
    )
    assert "reading" not in training.folder.read_data(tmp_path / "run")
    training.train(training.Run(model="dhn", hidden=(4,), epochs=1, batch_size=512), tmp_path / "q", progress=False)
    assert not capsys.readouterr().err


def test_other_files_are_answered_beside_a_damaged_one(trained, tmp_path):
    out, files, _ = trained("mixed", named)
    damaged = tmp_path / "damaged.csv"
    damaged.write_text(named(0, 1)[:-3])
    shown = run("predict", out, files[0], damaged, tmp_path / "missing.csv", files[1])
    assert shown.exit_code == 2
    assert [line.partition(":")[0] for line in shown.stdout.splitlines()] == [str(files[0]), str(files[1])]
    lines = shown.stderr.splitlines()
    assert lines[0].startswith(f"error: {damaged}: line 201: expected 4 whole numbers")
    assert lines[1].startswith(f"error: {tmp_path / 'missing.csv'}: expected a file")
    assert lines[2:] == ["error: no answer to 2 of 4 files"]
    given = [files[0], damaged, files[1]]
    first, error, last = predict(out, *given, on_error="answer")
    assert error == {"file": str(damaged), "error": lines[0].removeprefix("error: ")}
    assert [first["file"], last["file"]] == [str(files[0]), str(files[1])] and "class" in first and "class" in last
    answers = predict(out, *given)
    assert next(answers) == first
    with pytest.raises(RecordingError, match=r"damaged\.csv: line 201: expected 4 whole numbers"):
        next(answers)
    with pytest.raises(ValueError, match=r"^on_error: expected one of raise, answer, got 'skip'"):
        predict(out, *given, on_error="skip")
    assert run("predict", out, damaged).stderr.count("\n") == 1


def test_a_decision_is_said_with_the_step_since_which_it_is_the_same(trained, monkeypatch):
    out, _, _ = trained("steps", named)
    monkeypatch.setattr(
        predictions.Predictor,
        "__call__",
        lambda self, path: {"file": str(path), "class": "left", "over_time": ["left", "right", "left", "left"]},
    )
    assert run("predict", out, "a.csv").stdout == "a.csv: left (unchanged since time step 3 of 4)\n"
    shown = " ".join(run("predict", "--help").stdout.split())
    assert "Usage: htaf-snn predict [OPTIONS] RUN FILES..." in shown
    assert '"left (unchanged since time step 3 of 10)" says that' in shown


def test_a_window_in_another_unit_is_noticed(trained, monkeypatch):
    out, files, _ = trained("window", named)
    shown = run("predict", out, files[0], "--time-window", 0.01)
    assert shown.exit_code == 2
    assert shown.stderr == (
        "error: --time-window: expected at least 1 µs, got 0.01; if these are seconds, it is 10000 µs\n"
    )
    [answer] = predict(out, files[0], time_window=10_000)
    assert len(answer["over_time"]) == 10
    with pytest.warns(UserWarning, match=r"^time_window: 10 µs per frame, but 9\d{3} µs in the training"):
        [answer] = predict(out, files[0], time_window=10)
    assert len(answer["over_time"]) > 9000
    monkeypatch.setattr(predictions, "_MOST_FRAMES", 1000)
    with (
        pytest.warns(UserWarning, match="is it in µs"),
        pytest.raises(ValueError, match=r"0\.csv: expected at most 1000 frames of .*, got more of 10 µs each"),
    ):
        [*predict(out, files[0], time_window=10)]
    monkeypatch.setattr(predictions, "_MOST_FRAMES", 5)
    [answer] = predict(out, files[0], time_window=10_000)  # as in the training: any number
    assert len(answer["over_time"]) == 10
