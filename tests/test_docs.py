"""Every example that a reader meets runs: docstrings, the README's code and its commands."""

import doctest
import pkgutil
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
import typer.testing

import htaf_snn
import neuromorphic_datasets
from htaf_snn import cli

README = (Path(__file__).parents[1] / "README.md").read_text()
PACKAGES = (htaf_snn, neuromorphic_datasets)
MODULES = [
    *(package.__name__ for package in PACKAGES),
    *(
        module.name
        for package in PACKAGES
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    ),
]
BRIEFLY = {
    "train": "--epochs 1 --hidden 8 --time-bins 2",
    "icbm": "--epochs 1 --width 2",
    "compare": "--surrogates htaf,atan --slopes 1 --depths 1 --seeds 1 --epochs 1 --width 8 --time-bins 2 --workers 1",
}


def fenced(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands():
    """The README's htaf-snn commands that need no data from elsewhere."""
    lines = [line.partition("#")[0].strip() for block in fenced("sh") for line in block.splitlines()]
    return [line for line in lines if line.startswith("htaf-snn") and "--data-root" not in line]


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    assert doctest.testmod(import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0


def test_the_docstring_test_can_fail():
    assert {"htaf_snn.kernels.spike.reference", "neuromorphic_datasets._frames"} < set(MODULES)
    module = import_module("htaf_snn.surrogate")
    assert len([test for test in doctest.DocTestFinder().find(module) if test.examples]) >= 6


@pytest.mark.parametrize("code", fenced("python"), ids=lambda code: code.splitlines()[0])
def test_readme_code(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        exec(compile(code, "README.md", "exec"), {})
    finally:
        htaf_snn.unregister()


@pytest.mark.parametrize("command", commands())
def test_readme_commands(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, *arguments = shlex.split(command)
    brief = shlex.split(BRIEFLY.get(arguments[0], ""))
    result = typer.testing.CliRunner().invoke(cli.app, [*arguments, *brief])
    assert result.exit_code == 0, result.output
