"""Every example that a reader meets runs: in docstrings, the README's code and its commands."""

import ast
import doctest
import json
import pkgutil
import re
import shlex
import sys
from importlib import import_module
from pathlib import Path

import pytest
from commands import run

import htaf_snn
import neuromorphic_datasets
from htaf_snn.cli._app import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "tutorials").glob("*.ipynb"))]
README = PAGES[0].read_text()
PACKAGES = (htaf_snn, neuromorphic_datasets)
MODULES = [
    *(package.__name__ for package in PACKAGES),
    *(
        module.name
        for package in PACKAGES
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    ),
]
# Libraries that neither the package nor its tests require.
OPTIONAL = re.compile(r"^from (neurobench)\b", re.MULTILINE)
BRIEFLY = {
    "train": "--epochs 1 --hidden 8,8",
    "icbm": "--epochs 1 --width 2",
    "compare": "--surrogates htaf,atan --slopes 1 --depths 1 --seeds 1 --epochs 1 --width 8 --workers 1",
}


def fenced(language, page=README):
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def prose(page):
    """Return a page's text; for a notebook, its Markdown cells."""
    text = page.read_text()
    if page.suffix == ".md":
        return text
    return "\n".join("".join(c["source"]) for c in json.loads(text)["cells"] if c["cell_type"] == "markdown")


def missing(text, folder):
    """Return the files that a page links to or names by their path, and that do not exist."""
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text)
    tops = "|".join(
        path.name for path in ROOT.iterdir() if path.is_dir() and path.name[0] != "." and path.name != "runs"
    )
    named = re.findall(rf"`((?:{tops})/[\w./-]*)`", text)
    return [link for link in links if not (folder / link).exists()] + [n for n in named if not (ROOT / n).exists()]


def commands():
    """Return the README's htaf-snn commands that need neither external data nor a run."""
    lines = [line.partition("#")[0].strip() for block in fenced("sh") for line in block.splitlines()]
    return [line for line in lines if line.startswith("htaf-snn") and not {"--data-root", "RUN"} & {*line.split()}]


@pytest.mark.usefixtures("workers_here")
@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name, request):
    if name in ("htaf_snn.nn.spiking", "htaf_snn.nn.recurrent"):
        request.getfixturevalue("uncompiled")  # to save a second for each neuron
    assert doctest.testmod(import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0


def test_the_docstring_test_can_fail():
    assert {"htaf_snn.surrogate.elementwise", "neuromorphic_datasets._frames"} < set(MODULES)
    module = import_module("htaf_snn.hardening")
    assert len([test for test in doctest.DocTestFinder().find(module) if test.examples]) >= 6


@pytest.mark.parametrize("code", fenced("python"), ids=lambda code: code.splitlines()[0])
def test_readme_code(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for library in OPTIONAL.findall(code):
        pytest.importorskip(library, reason=f"{library} is not installed")
    try:
        exec(compile(code, "README.md", "exec"), {})
    finally:
        htaf_snn.unregister()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_and_file_names(page):
    assert missing(prose(page), page.parent) == []


def test_the_test_of_links_can_fail():
    text = "[a](docs/surrogates.png) [b](no.md) [c](https://a.org/b) `benchmarks/results/no.json` `runs/first`"
    assert missing(text, ROOT) == ["no.md", "benchmarks/results/no.json"]


def test_the_contributors_page_shows_the_surrogate_of_the_package():
    code, _ = fenced("python", PAGES[1].read_text())
    own = (ROOT / "htaf_snn" / "surrogate" / "formulas" / "triangle.py").read_text()
    shown, actual = (
        [ast.dump(node) for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
        for source in (code, own)
    )
    assert shown == actual and len(actual) == 2
    exec(compile(code, "CONTRIBUTING.md", "exec"), {})


def test_the_contributors_page_shows_the_neuron_of_the_package():
    _, code = fenced("python", PAGES[1].read_text())
    _, *own = ast.parse((ROOT / "htaf_snn" / "neurons" / "iaf.py").read_text()).body  # without the docstring
    assert [ast.dump(node) for node in ast.parse(code).body] == [ast.dump(node) for node in own]


def own_data(folder):
    """Write the recordings and the code that the README's commands name."""
    for name in ("left", "right"):
        (folder / "my_recordings" / name).mkdir(parents=True)
        for number in range(20):
            events = "\n".join(f"{1000 * t},{(t + number) % 8},{t % 5},{t % 2}" for t in range(20))
            (folder / "my_recordings" / name / f"{number}.csv").write_text(f"t,x,y,p\n{events}\n")
    code = "import neuromorphic_datasets as nd\ndef gestures():\n    return nd.EventFolder('my_recordings')\n"
    (folder / "my_sets.py").write_text(code)


@pytest.mark.parametrize("command", commands())
def test_readme_commands_have_options_that_exist(command):
    app.parse_args(shlex.split(command)[1:], exit_on_error=False, print_error=False)


# Of the studies, which take seconds each, the first is run by default.
FIRST, *OTHERS = sorted(commands(), key=lambda command: not command.startswith("htaf-snn compare"))
OTHERS = [
    pytest.param(command, marks=pytest.mark.thorough if command.startswith("htaf-snn compare") else ())
    for command in OTHERS
]


@pytest.mark.usefixtures("workers_here")
@pytest.mark.parametrize("command", [FIRST, *OTHERS])
def test_readme_commands(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    own_data(tmp_path)
    _, *arguments = shlex.split(command)
    brief = shlex.split(BRIEFLY.get(arguments[0], ""))
    brief += ["--select-seeds", "1"] if "--preset" in arguments else []
    if arguments[0] in ("train", "compare") and not {"bnn", "dhn"} & {*arguments} and "n_time_bins=" not in command:
        brief += ["--n-time-bins", "2"]
    if {"plif-net", "sew-resnet18"} & {*arguments}:
        brief = ["--width", "4", "--train-fraction", "0.05", "--epochs", "1", "--n-time-bins", "2"]
    result = run(*arguments, *brief)
    assert result.exit_code == 0, result.output
