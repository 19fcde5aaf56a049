"""What a command says of data that it cannot read, and where one writes what it needs."""

import subprocess
import sys

import numpy as np
import pytest
from commands import run

from htaf_snn.cli import _app

HINT = "; write EventFolder(…, {}) into a file of your own, --dataset FILE.py:NAME\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("left", "right"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for number in range(8):
            (tmp_path / "mine" / name / f"{number}.csv").write_text("t,x,y,p\n0,1,2,1\n5,3,1,0\n")
    return tmp_path / "mine"


def told(folder, dataset=None):
    shown = run("train", "--dataset", dataset or folder, "--out", folder.parent / "run")
    assert shown.exit_code == 2, shown.output
    assert shown.stderr.count("\n") == 1
    return shown.stderr


@pytest.mark.parametrize(
    ("name", "content", "words", "argument"),
    [
        ("0.csv", "0,1,2,1\n", "add them, or set columns", 'columns="txyp"'),
        ("0.csv", "t,x,y,p\n0.5,1,2,1\n", "for times in another unit than µs set time_unit", 'time_unit="ms"'),
        ("0.csv", "t,x,y,p\n0,1,2\n", "leaves such files out", 'on_error="skip"'),
        ("0.bin", "abc", "leaves such files out", 'on_error="skip"'),
    ],
)
def test_where_an_argument_of_a_folder_is_written(folder, name, content, words, argument):
    (folder / "left" / name).write_text(content)
    message = told(folder)
    assert message.endswith(words + HINT.format(argument))
    assert message.count("on_error") == 2 * ("on_error" in argument)


def test_words_of_a_path_are_no_remedy(folder):
    folder = folder.rename(folder.with_name("set place in the order 'b'"))
    (folder / "left" / "3.csv").write_text("")
    assert told(folder).endswith(
        'the file is empty; on_error="skip" leaves such files out' + HINT.format('on_error="skip"')
    )


def test_files_of_two_sensors(folder):
    for number, side in enumerate((4, 8)):
        (folder / "left" / f"{number}.csv").write_text(f"t,x@{side},y@{side},p\n0,1,2,1\n")
    assert told(folder).endswith("one that holds both" + HINT.format("sensor_size=(346, 260, 2)"))


def test_times_of_an_array_in_ms(folder):
    events = np.zeros(3, [("t", float), ("x", int), ("y", int), ("p", int)])
    events["t"] = 0.0, 0.25, 0.5
    np.save(folder / "left" / "8.npy", events)
    assert "8.npy: event 1: expected an integer t, got 0.25; for times in another unit than µs set time_unit" in told(
        folder
    )


def test_columns_in_another_order(folder):
    for path in folder.rglob("*.csv"):
        path.write_text("0,1,2,1\n50000,3,1,0\n")
    for columns, fault in (("xytp", "event 1: expected x in"), ("ptxy", "event 1: expected p to be 0 or 1")):
        (folder.parent / f"set_{columns}.py").write_text(
            f"import neuromorphic_datasets as nd\n\n\ndef mine():\n"
            f"    return nd.EventFolder({str(folder)!r}, columns={columns!r})\n"
        )
        shown = run("train", "--dataset", f"{folder.parent / f'set_{columns}.py'}:mine", "--out", folder.parent / "run")
        assert fault in shown.stderr and f"are the columns in the order {columns!r}?" in shown.stderr


def test_an_argument_that_does_not_suit_a_file_is_no_damage(folder):
    import h5py

    def message(name, option):
        made = f"nd.EventFolder({str(folder)!r}, {option})"
        code = f"import neuromorphic_datasets as nd\n\n\ndef mine():\n    return {made}\n"
        (folder.parent / f"{name}.py").write_text(code)
        return told(folder, f"{folder.parent / name}.py:mine")

    (folder / "left" / "0.csv").write_text("t_s,x,y,p\n0,1,2,1\n")
    assert message("unit", "time_unit='ms'").endswith("expected time_unit 's', as its times are named, got 'ms'\n")
    for path in folder.rglob("*.csv"):
        path.unlink()
        with h5py.File(path.with_suffix(".h5"), "w") as file:
            file["a"] = 1
    assert message("place", "place='b'").endswith("expected 'b', as place says, got ['a']\n")


def test_frames_of_a_set_s_own(folder):
    (folder.parent / "framed.py").write_text(
        f"import neuromorphic_datasets as nd\n\nmine = nd.EventFolder({str(folder)!r}, time_window=2)\n"
    )
    shown = run("train", "--dataset", f"{folder.parent / 'framed.py'}:mine", "--out", folder.parent / "run")
    assert shown.exit_code == 2 and "ToFrames(" not in shown.stderr
    assert shown.stderr.endswith(
        "leave n_time_bins, time_window and ToFrames out of the data set; the command makes frames by --n-time-bins\n"
    )


@pytest.mark.thorough
def test_a_warning_is_one_line_without_our_code(folder):
    (folder / "notes.txt").write_text("not a recording")
    command = [sys.executable, "-m", "htaf_snn", "train", "--dataset", str(folder), "--epochs", "1", "--hidden", "4"]
    shown = subprocess.run([*command, "--out", str(folder.parent / "run")], capture_output=True, text=True, timeout=300)
    assert shown.returncode == 0, shown.stderr
    assert shown.stderr.splitlines()[0] == (
        f"warning: {folder}: files that are not read: 1 (.txt 1), the first notes.txt"
    )
    assert "warnings.warn" not in shown.stderr


def test_words_alone_are_no_remedy():
    for message in ("lr: expected a number > 0, got -1", "loader: leave the order out of the data set"):
        assert _app.with_remedy(message, ValueError(message)) == message
