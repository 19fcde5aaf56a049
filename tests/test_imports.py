"""Who imports whom, and what `import htaf_snn` loads."""

import ast
import graphlib
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = ("triton", "numba", "snntorch", "norse", "tonic", "matplotlib", "scipy", "sklearn", "cyclopts")
# What each part may import of this package, besides what those below it may.
BELOW = {
    "_checks": {"_hints"},
    "_figures": {"_files"},
    "_files": set(),
    "_hints": set(),
    "_memory": set(),
    "_packages": set(),
    "_pages": set(),
    "_pdf_figure": {"_figures"},
    "configuration": {"_hints"},
    "surrogate": {"_checks", "_figures", "_files", "_packages"},
    "neurons": {"surrogate"},
    "kernels": {"neurons", "_files"},
    "functional": {"kernels"},
    "nn": {"functional"},
    "models": {"nn", "configuration"},
    "interop": {"nn"},
    "profile": {"functional", "_figures"},
    "hardening": {"models"},
    "deploy": {"models", "_files"},
    "training": {"hardening", "interop", "_files", "configuration", "plots"},
    "bench": {"interop", "deploy"},
    "compare": {"training", "profile", "_pages", "_memory"},
    "concepts": {"training", "_pages"},
    "plots": {"_checks", "_pdf_figure"},
    "evaluation": {"compare", "plots"},
    "cli": {"configuration", "evaluation", "training", "profile", "bench", "compare", "concepts", "deploy"},
}
# Only these may touch what changes other libraries.
USERS_OF_INTEROP = {"__init__", "interop", "training", "evaluation", "bench", "compare", "cli"}
ONLY_IN = {
    "snntorch": {
        f"htaf_snn/{name}.py" for name in ("interop/snntorch", "models/neurons", "surrogate/libraries/snntorch")
    },
    "norse": {f"htaf_snn/{name}.py" for name in ("interop/norse", "models/neurons", "surrogate/libraries/norse")},
    "spikingjelly": {f"htaf_snn/{name}/spikingjelly.py" for name in ("interop", "surrogate/libraries")},
    "sinabs": {f"htaf_snn/{name}/sinabs.py" for name in ("interop", "surrogate/libraries")},
    "neurobench": {"htaf_snn/interop/neurobench.py"},
    "cyclopts": {
        f"htaf_snn/cli/{name}.py" for name in ("_app", "_options", "train", "use", "compare", "event_data", "measure")
    },
    "tonic": {"neuromorphic_datasets/_tonic.py"},
    "faery": {"neuromorphic_datasets/readers/_aedat.py"},
    "requests": {"neuromorphic_datasets/_download.py"},
    "torchvision": {"neuromorphic_datasets/_image_files.py", "htaf_snn/training/augmenting.py"},
    "matplotlib": {
        f"htaf_snn/{name}.py"
        for name in ("_figures", "_pdf_figure", "plots", "profile", "compare/drawing", "surrogate/suggestions")
    },
    "optuna": {"htaf_snn/compare/queue.py"},
    "submitit": {"htaf_snn/compare/launching.py"},
    "lightning_fabric": {"htaf_snn/training/processes.py"},
    "onnxruntime": {"htaf_snn/deploy/export.py"},
    "onnxscript": {"htaf_snn/deploy/export.py"},
    "jinja2": {"htaf_snn/_pages.py"},
    "numba": {
        "htaf_snn/kernels/numba_cpu.py",
        "htaf_snn/kernels/vectors/numba_cpu.py",
        "neuromorphic_datasets/_kernels.py",
    },
    "llvmlite": {"htaf_snn/kernels/numba_cpu.py", "htaf_snn/kernels/vectors/numba_cpu.py"},
    "triton": {
        f"htaf_snn/kernels/{folder}triton_gpu.py"
        for folder in ("", "neuron/", "elementwise/", "binary_linear/", "heaviside_linear/")
    },
}


def loaded(code, names=HEAVY):
    script = f"{code}\nimport sys\nprint(*[name for name in {names!r} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return run.stdout.split()


def imports(path, type_checking=True):
    """Return the absolute dotted names that a file imports, by statement or by `import_module("…")`."""
    return named_in(path.read_text(), path.relative_to(ROOT).with_suffix("").parts[:-1], type_checking)


@cache  # a file is read by many tests
def named_in(text, package, type_checking):
    return [*_named_in(ast.parse(text), package, type_checking)]


def _named_in(tree, package, type_checking):
    for node in ast.walk(tree):
        if not type_checking and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = [*base, *filter(None, [node.module])]
            yield from (".".join([*base, alias.name]) for alias in node.names)
        elif isinstance(node, ast.Call) and "import_module" in (getattr(node.func, k, "") for k in ("id", "attr")):
            yield from (arg.value for arg in node.args if isinstance(arg, ast.Constant))


def edges(package):
    """Return the modules of the package that each of its modules imports."""
    dotted = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in sources(package)}
    paths = {name.removesuffix(".__init__"): path for path, name in dotted.items()}

    def module(name):
        while name and name not in paths:  # it is a member, or of another package
            name = name.rpartition(".")[0]
        return name

    return {name: {*map(module, imports(path, type_checking=False))} - {""} for name, path in paths.items()}


def circle(edges):
    """Return the modules along a circle of imports, the first again at the end; an empty list if there is none."""
    try:
        graphlib.TopologicalSorter(edges).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def part(name):
    """The part of the package that a dotted name belongs to; None for the package itself and for others."""
    parts = name.split(".")
    return (
        parts[1] if parts[0] == "htaf_snn" and len(parts) > 1 and (parts[1] in BELOW or is_module(parts[1])) else None
    )


def is_module(name):
    return any((ROOT / "htaf_snn" / name).with_suffix(suffix).exists() for suffix in ("", ".py"))


def reachable(name):
    found = {name}
    for below in BELOW[name]:
        found |= reachable(below)
    return found


def upward(path, names):
    own = part(".".join(path.relative_to(ROOT).with_suffix("").parts))
    if own in (None, "__init__", "__main__"):
        return []
    return [name for name in names if part(name) not in (None, *reachable(own))]


def sources(package):
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.thorough
def test_import_loads_only_torch_and_numpy():
    assert loaded("import htaf_snn, htaf_snn.surrogate, htaf_snn.functional, htaf_snn.models") == []
    assert loaded("import neuromorphic_datasets", ("tonic", "numba", "scipy", "sklearn", "matplotlib")) == []


@pytest.mark.thorough
def test_a_surrogate_alone_has_its_kernels():
    use = "import torch; from htaf_snn import HTAF; HTAF(hardness=0.0)(torch.zeros({}))"
    kernels = ("htaf_snn.kernels.elementwise.numba_cpu",)
    assert (loaded(use.format(2**15 - 1), kernels), loaded(use.format(2**15), kernels)) == ([], [*kernels])


def test_commands_show_help_without_torch():
    assert loaded("import htaf_snn, htaf_snn.cli", ("torch", "neuromorphic_datasets")) == []


def test_the_import_test_can_fail():
    assert loaded("import htaf_snn, scipy") == ["scipy"]


@pytest.mark.parametrize("path", sources("htaf_snn"), ids=lambda p: str(p.relative_to(ROOT)))
def test_arrows_point_one_way(path):
    names = list(imports(path))
    assert upward(path, names) == []
    if path.relative_to(ROOT).with_suffix("").parts[1] not in USERS_OF_INTEROP:
        assert "interop" not in map(part, names)
    if path.parent.name not in ("training", "compare", "concepts", "evaluation", "cli"):
        assert not [name for name in names if name.startswith("neuromorphic_datasets")]


# Kernels register themselves with torch when they are first needed, by the surrogates on which they are built.
LATER = {("htaf_snn/surrogate/elementwise.py", "..kernels.elementwise")}


def test_arrows_are_not_hidden_in_relative_names():
    paths = [path for package in ("htaf_snn", "neuromorphic_datasets") for path in sources(package)]
    relative = {(str(path.relative_to(ROOT)), name) for path in paths for name in imports(path) if name[0] == "."}
    assert relative == LATER


def test_the_arrow_test_can_fail():
    assert upward(ROOT / "htaf_snn/surrogate/base.py", ["htaf_snn.functional.spike"])
    assert upward(ROOT / "htaf_snn/functional/steps.py", ["htaf_snn.profile.plot"])
    assert upward(ROOT / "htaf_snn/models/spiking.py", ["htaf_snn.interop.register"])
    assert "htaf_snn.surrogate.HTAF" in set(imports(ROOT / "htaf_snn/__init__.py"))


def between_folders(edges):
    """Return the top-level folders and files of the package that each of them imports, from edges between modules."""
    tops = {name: ".".join(name.split(".")[:2]) for name in edges}
    below = {tops[name]: set() for name in edges if "." in name}  # the package itself exports all of them
    for name, imported in edges.items():
        if "." in name:
            below[tops[name]] |= {tops[other] for other in imported if "." in other} - {tops[name]}
    return below


@pytest.mark.parametrize("package", ["htaf_snn", "neuromorphic_datasets"])
def test_no_circle_between_files_or_folders(package):
    assert circle(edges(package)) == []
    assert circle(between_folders(edges(package))) == []


def test_the_folders_test_can_fail():
    files = {"p": {"p.a.one"}, "p.a.one": {"p.b.one"}, "p.b.one": set(), "p.b.two": {"p.a.two"}, "p.a.two": set()}
    assert circle(files) == []
    assert set(circle(between_folders(files))) == {"p.a", "p.b"}


def test_the_circle_test_can_fail(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    files = {
        "__init__": "from .one import name",
        "one": "import json\nfrom .two import name",
        "two": "def function():\n    from p import three",
        "three": "import p.four.inner as inner",
        "four/__init__": "",
        "four/inner": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..one import name",
    }
    (tmp_path / "p" / "four").mkdir(parents=True)
    for name, text in files.items():
        (tmp_path / "p" / f"{name}.py").write_text(text)
    assert edges("p") == {
        "p": {"p.one"},
        "p.one": {"p.two"},
        "p.two": {"p.three"},
        "p.three": {"p.four.inner"},
        "p.four": set(),
        "p.four.inner": set(),
    }
    assert circle(edges("p")) == []
    (tmp_path / "p" / "four" / "inner.py").write_text("def function():\n    from ..one import name")
    assert set(circle(edges("p"))) == {"p.one", "p.two", "p.three", "p.four.inner"}


@pytest.mark.parametrize("path", sources("neuromorphic_datasets"), ids=lambda p: p.name)
def test_datasets_know_nothing_of_htaf_snn(path):
    assert not [name for name in imports(path) if name.startswith("htaf_snn")]


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_is_named_in_one_place(library):
    users = {
        str(path.relative_to(ROOT))
        for package in ("htaf_snn", "neuromorphic_datasets")
        for path in sources(package)
        if any(name.split(".")[0] == library for name in imports(path))
    }
    assert users == ONLY_IN[library]


def test_files_of_tests_are_short_and_named_apart():
    paths = sources("tests")
    assert not [path for path in paths if len(path.read_text().splitlines()) > 400]
    names = [path.name for path in paths if path.name != "conftest.py"]  # each is imported by its name alone
    assert len(names) == len({*names})


def test_no_file_is_named_like_a_library():
    taken = {"torch", "snntorch", "norse", "tonic", "numpy", "scipy", "numba", "triton", "matplotlib", "cyclopts"}
    taken |= {"datasets", "optuna", "sklearn", "nir", "onnx", "jinja2", "requests", "PIL", "sinabs", "spikingjelly"}
    paths = [path for package in ("htaf_snn", "neuromorphic_datasets", "tests") for path in sources(package)]
    # These two folders hold a file for each library, and nothing that is run as a script.
    assert not {path.stem for path in paths if path.parent.name not in ("interop", "libraries")} & taken
