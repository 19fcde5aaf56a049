"""Surrogates of a user's file, as FILE.py:NAME."""

import hashlib
import itertools
import json
import os
import pickle
import re
import subprocess
import sys
from unittest.mock import Mock

import pytest
import torch
from commands import run
from studies import SMALL, workers_here

from htaf_snn import surrogate, training
from htaf_snn.cli._options import settled
from htaf_snn.compare import Settings, Study, own_files, trial
from htaf_snn.surrogate import specifications

NUMBERS = itertools.count()
TEXT = """
from htaf_snn import surrogate


def primitive(x, width):
    return 0.5 + x / (2.0 * (width + abs(x)))


def derivative(x, width):
    return 0.5 * width / (width + abs(x)) / (width + abs(x))


@surrogate.register
class Own(surrogate.Surrogate, formula=surrogate.Formula("NAME", primitive, derivative)):
    width: float = 1.0
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The path of a file that registers a surrogate of the same name."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    name = f"own_{next(NUMBERS)}"  # another for each test, as modules stay imported
    path = tmp_path / "folder" / f"{name}.py"
    path.parent.mkdir()
    path.write_text(TEXT.replace("NAME", name))
    return path


def test_a_file_is_imported(own):
    resolved = surrogate.resolve(f" {own}:{own.stem}(width=0.5)")
    assert (type(resolved).__name__, resolved.width, type(resolved).__module__) == ("Own", 0.5, own.stem)
    assert surrogate.resolve(f"{own}:{own.stem}").width == 1.0  # once more
    assert surrogate.fault(f"{own}:{own.stem}") is None
    stretched = surrogate.resolve(f"rescaled(function='{own}:{own.stem}(width=2)', stretch=3.0)")
    assert (stretched.function.width, stretched.stretch) == (2.0, 3.0)
    x = torch.ones(1, requires_grad=True)
    resolved(x).backward()
    assert x.grad.item() == pytest.approx(0.5 * 0.5 / 1.5**2)
    code = "import pickle, sys; print(pickle.load(sys.stdin.buffer).width)"
    given = pickle.dumps(resolved)
    where = {"PYTHONPATH": f"{own.parent}:{':'.join(sys.path)}"}
    assert subprocess.run([sys.executable, "-c", code], input=given, env=where, capture_output=True).stdout == b"0.5\n"


@pytest.mark.parametrize("folder", ["Dropbox (Uni)", "O'Brien", 'a "b"', "a.py:1", "a, b", "Dropbox(Uni)", "a)b"])
def test_a_folder_may_have_any_name(own, tmp_path, monkeypatch, folder):
    (tmp_path / folder).mkdir()
    moved = own.rename(tmp_path / folder / own.name)
    monkeypatch.chdir(moved.parent)
    for text in (f"{own.name}:{own.stem}(width=2)", f"rescaled(function='{own.name}:{own.stem}(width=2)', stretch=3)"):
        whole = specifications.with_whole_path(text)
        assert specifications.with_whole_path(whole) == whole != text
        assert specifications.without_folder(whole) == text
        monkeypatch.chdir(tmp_path)
        assert "width=2.0" in str(surrogate.resolve(whole))
        above = text.replace(own.name, f"{folder}/{own.name}")
        if "rescaled" not in text or "'" not in folder:
            assert specifications.with_whole_path(above) == whole
        monkeypatch.chdir(moved.parent)


def test_a_malformed_call_is_no_path(own):
    for text in (f"rescaled(function='{own.name}:{own.stem}', stretch=)", f"rescaled('{own}:{own.stem}')"):
        assert specifications.with_whole_path(text) == text
        with pytest.raises(ValueError, match=r"^surrogate: expected a name or name\(key=value"):
            surrogate.resolve(text)


def test_a_drive_may_have_a_letter():
    assert specifications._own(r"C:\Users\me\soft.py:soft(width=2)")["name"] == "soft(width=2)"


def test_the_paths_within_options_are_whole(own, monkeypatch):
    monkeypatch.chdir(own.parent)
    given = f"{own.name}:{own.stem}"
    options = {"surrogate": f"rescaled(function='{given}')", "axis": {"weight_surrogate": (given, "htaf")}}
    expected = {"surrogate": f"rescaled(function='{own}:{own.stem}')"}
    assert settled(options) == expected | {"axis": {"weight_surrogate": (f"{own}:{own.stem}", "htaf")}}


@pytest.mark.parametrize("folder", ["a,b", "htaf, old", "x,y,z", "Dropbox(a,b)"])
def test_a_path_in_a_list_may_have_commas(own, tmp_path, monkeypatch, folder):
    (tmp_path / folder).mkdir()
    moved, name = own.rename(tmp_path / folder / own.name), f"{own.stem}(width=2)"
    monkeypatch.chdir(tmp_path)
    for path in (moved, moved.relative_to(tmp_path)):
        options = ["--surrogates", f"htaf(alpha=1, beta=8), {path}:{name},atan,{path}:{own.stem}", "--seeds", "1"]
        options += ["--axis", f"weight_surrogate={path}:{name},ede", "--model", "bnn"]
        with monkeypatch.context() as patch:
            patch.setattr("htaf_snn.compare.Study", given := Mock(side_effect=ValueError("enough")))
            run("compare", *options)
        own_ones = (f"{moved}:{name}", f"{moved}:{own.stem}")
        assert given.call_args.kwargs["surrogates"] == ("htaf(alpha=1, beta=8)", own_ones[0], "atan", own_ones[1])
        assert given.call_args.kwargs["axis"] == {"weight_surrogate": (own_ones[0], "ede")}


def test_a_missing_file_in_a_list_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = ",".join(f"a{number}" for number in range(99))  # longer than a name may be
    shown = run("compare", "--surrogates", f"htaf,{folder}/soft.py:soft", "--seeds", "1", "--out", "study")
    assert shown.exit_code == 2 and shown.stderr.startswith("error: unknown surrogate 'a0'; ")


@pytest.mark.thorough
def test_a_script_may_name_itself(own):
    own.write_text(own.read_text() + f"\n\nprint(surrogate.resolve({f'{own.name}:{own.stem}(width=2)'!r}).width)\n")
    done = subprocess.run([sys.executable, own.name], cwd=own.parent, capture_output=True, text=True)
    assert done.stdout == "2.0\n", done.stderr


@pytest.mark.thorough
def test_a_cached_kernel_needs_no_module_of_another_process(tmp_path):
    code = "import torch; from htaf_snn import functional; x = torch.ones(3, 2, 4, requires_grad=True)\n"
    code += "functional.leaky(x, beta=0.9, surrogate='{file}:one')[0].sum().backward(); print(x.grad.sum().item())"
    printed = []
    for name in ("first", "second"):
        file = tmp_path / name / f"{name}.py"
        file.parent.mkdir()
        file.write_text(TEXT.replace("NAME", "one"))
        where = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
        command = [sys.executable, "-c", code.format(file=file)]
        printed.append(subprocess.run(command, env=where, capture_output=True, text=True, check=True).stdout)
    assert printed[0] == printed[1] != ""
    kernels = [path.name.partition("-")[0] for path in (tmp_path / "cache").rglob("*.nbc")]
    assert len(kernels) == len(set(kernels)) > 1  # the second process compiled none


def test_what_is_wrong_with_a_file_is_said(own, tmp_path):
    with pytest.raises(ValueError, match=rf"^surrogate: expected a file, got none at {tmp_path}/no\.py"):
        surrogate.resolve(f"{tmp_path}/no.py:own")
    for other in ("other", "htaf", "snntorch.atan", "rescaled(function='htaf')"):
        name = other.partition("(")[0]
        expected = f"surrogate: expected one that {own.name} registers: {own.stem}, got '{name}'"
        with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
            surrogate.resolve(f"{own}:{other}")
    with pytest.raises(ValueError, match=r"expected one of: .*, or FILE\.py:NAME of your own$"):
        surrogate.resolve("softstep")
    again = tmp_path / own.name
    again.write_text("")
    with pytest.raises(ValueError, match=r"^surrogate: expected a file whose name no other module has, got .*; rename"):
        surrogate.resolve(f"{again}:{own.stem}")


@pytest.mark.thorough
def test_a_study_compares_it_with_workers(own, tmp_path, monkeypatch):
    monkeypatch.chdir(own.parent)
    out = tmp_path / "study"
    options = ["--epochs", "1", "--batch-size", "256", "--width", "8", "--n-time-bins", "2", "--seeds", "2"]
    done = run("compare", "--surrogates", f"htaf,{own.name}:{own.stem}(width=0.5)", *options, "--out", str(out))
    assert done.exit_code == 0, done.output
    monkeypatch.chdir(tmp_path)
    study = Study(out)
    assert study.settings.surrogates[1] == f"{own}:{own.stem}(width=0.5)"
    assert study.counts() == {"waiting": 0, "running": 0, "finished": 4, "failed": 0}
    for name in ("report.html", "table.md", "table.tex"):
        text = (out / name).read_text().replace(r"\_", "_")
        assert f"{own.name}:{own.stem}(width=0.5)" in text
        assert name == "report.html" or str(own.parent) not in text


def test_a_study_refuses_what_its_workers_do_not_know(own, tmp_path):
    surrogate.resolve(f"{own}:{own.stem}")
    study = Study(tmp_path / "study", surrogates=["htaf", f"{own.stem}(width=0.5)"], seeds=1, **SMALL)
    with pytest.raises(
        ValueError, match=rf"^surrogate: expected FILE.py:NAME for one .*, got '{own.stem}\(width=0.5\)'"
    ):
        study.run(workers=1, progress=False)
    assert study.counts()["waiting"] == 2


def test_what_workers_do_not_know_is_found_everywhere(own, tmp_path):
    surrogate.resolve(f"{own}:{own.stem}")
    nested = f"rescaled(function='{own.stem}')"
    for given in (
        {"surrogates": ["htaf", nested]},
        {"surrogates": ["htaf"], "model": "bnn", "axis": {"weight_surrogate": ("htaf", own.stem)}},
        {"surrogates": ["htaf"], "reference": own.stem, "match": "peak"},
    ):
        settings = Settings.of(seeds=1, **given)
        with pytest.raises(ValueError, match=rf"^surrogate: expected FILE.py:NAME for one .*, got '{own.stem}'$"):
            own_files.check_known_elsewhere(settings)


def test_places_are_named_without_folders(own):
    axis = {"weight_surrogate": ("htaf", f"{own}:{own.stem}")}
    settings = Settings.of(surrogates=["htaf"], model="bnn", seeds=1, axis=axis)
    assert [arm[-1] for arm in settings.arms()] == ["weight_surrogate=htaf", f"weight_surrogate={own.name}:{own.stem}"]
    axis = {"weight_surrogate": (f"a/{own.name}:{own.stem}", f"b/{own.name}:{own.stem}")}
    with pytest.raises(ValueError, match=r"^axis: expected different values of weight_surrogate"):
        Settings.of(surrogates=["htaf"], model="bnn", seeds=1, axis=axis)


@pytest.mark.thorough
def test_a_study_does_not_go_on_with_a_changed_file(own, tmp_path):
    given = {"surrogates": ["htaf", f"rescaled(function='{own}:{own.stem}')"], **SMALL}
    study = Study(tmp_path / "study", seeds=1, **given)
    with workers_here():
        study.run(progress=False)
        before = own.read_text()
        digest = hashlib.sha256(before.encode()).hexdigest()[:16]
        assert [trial["versions"].get(own.name) for trial in study.results()] == [None, digest]
        assert f"<dt>{own.name}</dt><dd>{digest}</dd>" in study.report().read_text()
        own.write_text(before.replace("0.5 * width", "0.6 * width"))
        expected = f"surrogates: expected {own.name} as when the study began, got a changed file; begin another study"
        with pytest.raises(ValueError, match=f"^{re.escape(expected)} in another folder"):
            study.run(progress=False)
        with pytest.raises(ValueError, match=f"^{re.escape(expected)}"):
            Study(tmp_path / "study", seeds=2)
        assert json.loads((tmp_path / "study" / "study.json").read_text())["seeds"] == 1
        assert len(Study(tmp_path / "study", read_only=True).results()) == 2
        own.write_text(before)
        assert Study(tmp_path / "study", seeds=2, **given).run(progress=False)["finished"] == 4


def test_a_failed_trial_is_shown_without_the_folder(own, tmp_path, monkeypatch):
    study, run_trial = Study(tmp_path / "study", surrogates=["htaf", f"{own}:{own.stem}"], seeds=1, **SMALL), trial.run

    def fails(one, *given):
        return run_trial(one, *given) if one.surrogate == "htaf" else 1 / 0

    monkeypatch.setattr(trial, "run", fails)
    study.work()
    failed = study.report().read_text().split("<ul>")[1].split("</ul>")[0]
    assert f"{own.name}:{own.stem}, annealed none" in failed and str(own.parent) not in failed


def test_a_run_is_found_again_from_elsewhere(own, tmp_path, monkeypatch):
    monkeypatch.chdir(own.parent)
    options = ["--epochs", "1", "--hidden", "8", "--n-time-bins", "2", "--out", str(tmp_path / "run")]
    done = run("train", "--surrogate", f"{own.name}:{own.stem}(width=0.5)", *options)
    assert done.exit_code == 0, done.output
    monkeypatch.chdir(tmp_path)
    net = training.load(tmp_path / "run")
    assert {module.width for module in net.modules() if type(module).__name__ == "Own"} == {0.5}
