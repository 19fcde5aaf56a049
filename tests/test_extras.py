"""What the package imports is declared, what it does not always need is an extra, and messages name that extra."""

import ast
import configparser
import os
import re
import subprocess
import sys
from functools import cache

import pytest
from test_imports import ROOT, imports, sources

import htaf_snn
import neuromorphic_datasets._packages
from htaf_snn import _packages
from htaf_snn.compare.versions import versions

PACKAGES = ("htaf_snn", "neuromorphic_datasets")
# Packages whose modules have another name.
MODULES = {
    "ipython": "IPython",
    "pillow": "PIL",
    "pytorch-concepts": "torch_concepts",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
}
# Triton comes with torch where there are GPUs for it.
UNDECLARED = {"triton", *PACKAGES}
SETTINGS = configparser.ConfigParser()
SETTINGS.read(ROOT / "setup.cfg")
EXTRAS = SETTINGS["options.extras_require"]


def declared(text):
    """Return the packages that a list of requirements names."""
    return {re.split(r"[^\w-]", line.strip())[0] for line in text.strip().splitlines() if not line.startswith("#")}


def modules(packages):
    return {MODULES.get(name, name.replace("-", "_")) for name in packages}


NEEDED = declared(SETTINGS["options"]["install_requires"])
OPTIONAL = set().union(*(declared(text) for name, text in EXTRAS.items() if name not in ("test", "release", "docs")))


@cache
def imported(path, everywhere=True):
    """Return the packages of others that a file imports, only those that it needs to be imported unless everywhere."""
    tree = ast.parse(path.read_text())
    names = set(imports(path)) if everywhere else {*at_once(tree.body)}
    return {name.partition(".")[0] for name in names} - {"", "_typeshed"} - set(sys.stdlib_module_names) - UNDECLARED


def at_once(body):
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module


def missing(path):
    """Return what a file imports without a declaration, and what it imports at once although it is an extra."""
    return imported(path) - modules(NEEDED | OPTIONAL), imported(path, everywhere=False) - modules(NEEDED)


@pytest.mark.parametrize("package", PACKAGES)
def test_what_is_imported_is_declared(package):
    faults = {path: missing(path) for path in sources(package)}
    assert {path: names for path, names in faults.items() if any(names)} == {}


def test_what_is_declared_is_imported():
    used = set().union(*(imported(path) for package in PACKAGES for path in sources(package)))
    programs = {"psycopg", "qonnx", "tensorboard", "jupyterlab", "ipywidgets", "nir", "nirtorch"}
    assert modules(NEEDED) - used == set()
    assert modules(OPTIONAL) - modules(NEEDED) - used == programs


def test_the_declaration_test_can_fail():
    undeclared, at_import = missing(ROOT / "tests" / "datasets" / "test_formats.py")
    assert "pytest" in undeclared and "h5py" in at_import


def requirement_lines():
    texts = [SETTINGS["options"]["install_requires"], *EXTRAS.values()]
    return [line for text in texts for line in text.strip().splitlines() if not line.startswith("#")]


def test_every_requirement_says_why():
    assert [line for line in requirement_lines() if not re.search(r"  # \S", line)] == []


def pages():
    """Return the texts in which an extra may be named."""
    files = [path for package in PACKAGES for path in sources(package)]
    for pattern in ("*.md", ".ci/run", ".github/**/*.y*ml", "docs/**/*.md", "tutorials/*.ipynb", "benchmarks/**/*.py"):
        files += ROOT.glob(pattern)
    return {path.relative_to(ROOT): path.read_text().replace("\\", "") for path in files}


def extras_in(text):
    return {name for names in re.findall(r"(?:\"|')(?:\.|htaf-snn)\[([\w,]+)\]", text) for name in names.split(",")}


def test_the_extras_that_texts_name_exist():
    unknown = {path: extras_in(text) - set(EXTRAS) for path, text in pages().items()}
    assert {path: names for path, names in unknown.items() if names} == {}
    assert extras_in('pip install ".[no,such]" or "htaf-snn[third]"') == {"no", "such", "third"}


def asked_for():
    """Return the extras that calls of `needs` name, by the modules imported within."""
    for package in PACKAGES:
        for path in sources(package):
            for node in ast.walk(ast.parse(path.read_text())):
                call = node.items[0].context_expr if isinstance(node, ast.With) else None
                if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "needs":
                    yield call.args[0].value, {name.partition(".")[0] for name in at_once(node.body)}


def test_a_missing_import_names_an_extra_that_has_it():
    calls = list(asked_for())
    assert {"aedat", "download", "hdf5", "images", "onnx", "tonic"} <= {extra for extra, _ in calls}
    for extra, names in calls:
        # torch.utils.tensorboard needs tensorboard, and qonnx brings onnx.
        assert names - {"torch"} <= modules(declared(EXTRAS[extra])) | ({"onnx"} if extra == "qonnx" else set())


def test_messages_work_in_a_clone():
    for package in PACKAGES:
        for path in sources(package):
            text = path.read_text()
            assert "htaf-snn[" not in text
            for name in re.findall(r"pip install ([\w-]+)", text):
                assert name in NEEDED | OPTIONAL, path


@pytest.mark.parametrize("needs", [_packages.needs, neuromorphic_datasets._packages.needs])
def test_a_missing_package_is_told_from_a_broken_one(needs, monkeypatch):
    monkeypatch.setitem(sys.modules, "tonic", None)
    with pytest.raises(ImportError, match=r'^tonic is not installed; pip install ".\[tonic\]"$'), needs("tonic"):
        import tonic  # noqa: F401
    with pytest.raises(ImportError, match=r"^cannot import name"), needs("tonic"):
        from os import no_such_name  # type: ignore[attr-defined] # noqa: F401


def test_the_version_stands_in_one_place():
    assert SETTINGS["metadata"]["version"] == "attr: htaf_snn.__version__"
    assert versions()["htaf-snn"] == htaf_snn.__version__ == _packages.version_of("htaf-snn")
    assert neuromorphic_datasets._packages.version_of("no-such-package") == ""


# What a plain installation lacks, and the two libraries whose neurons and surrogates are optional in use. Norse brings
# torchvision and, through NIR, h5py.
WITHOUT = sorted(modules(OPTIONAL) - modules(NEEDED) | {"onnx", "norse", "snntorch"})
BLOCKED = """
from importlib.machinery import PathFinder
find = PathFinder.find_spec
def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in {without!r} else find(name, path, target)
PathFinder.find_spec = find_spec
"""
EVERYTHING = """
import importlib, pkgutil
for package in ("htaf_snn", "neuromorphic_datasets"):
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
        if not module.name.endswith(("triton_gpu", "__main__")):
            importlib.import_module(module.name)
"""


@pytest.fixture
def python(tmp_path):
    """A function that runs Python without some modules, and its own, too, as in an environment that lacks them."""

    def run(*arguments, without=WITHOUT):
        (tmp_path / "sitecustomize.py").write_text(BLOCKED.format(without=set(without)))
        environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
        command = [sys.executable, "-W", "ignore", *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    return run


@pytest.mark.thorough
def test_every_module_can_be_imported_without_extras_norse_and_snntorch(python):
    assert python("-c", EVERYTHING).stderr == ""
    assert "ModuleNotFoundError: No module named 'numba'" in python("-c", EVERYTHING, without=["numba"]).stderr


@pytest.mark.thorough
def test_the_first_training_needs_no_extra(python, tmp_path):
    finished = python("-m", "htaf_snn", "train", "--epochs", 1, "--out", tmp_path / "run")
    assert finished.returncode == 0 and "test accuracy" in finished.stdout, finished.stderr


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("profile norse.super", "error: --surrogate: norse is not installed; pip install norse"),
        ("train --model bnn --dataset mnist", 'error: torchvision is not installed; pip install ".[images]"'),
        ("datasets info shd", 'error: tonic is not installed; pip install ".[tonic]"'),
    ],
)
def test_a_command_names_what_to_install(python, command, message):
    finished = python("-m", "htaf_snn", *command.split())
    assert (finished.returncode, finished.stderr.strip()) == (2, message)


def test_the_extra_of_tests_has_what_they_import():
    others = extras_in(f'"{EXTRAS["test"].split()[0]}"')
    have = modules(NEEDED.union(*(declared(EXTRAS[name]) for name in {"test", *others})))
    # These come with Norse, nbclient, pytest and Tonic.
    have |= {"nir", "nirtorch", "nbformat", "_pytest", "expelliarmus"}
    skipped = {"spikingjelly", "sinabs", "psycopg", "pyarrow", "torch_concepts", "sae_lens", "timm"}
    names = {path.stem for folder in ("tests", "docs/_extensions") for path in (ROOT / folder).rglob("*.py")} | {
        "benchmarks"
    }
    for path in (ROOT / "tests").rglob("*.py"):
        used = {name.partition(".")[0] for name in at_once(ast.walk(ast.parse(path.read_text())))}
        assert used - names - skipped - UNDECLARED - set(sys.stdlib_module_names) <= have, path
