"""Who imports whom, and what `import htaf_snn` loads."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = ("triton", "numba", "snntorch", "norse", "tonic", "matplotlib", "scipy", "sklearn", "typer")
# From the bottom up: a part imports only from those before it.
LAYERS = ("formulas", "kernels", "functional", "surrogate", "nn", "integrations", "models", "training", "cli")
ONLY_IN = {
    "snntorch": {"htaf_snn/integrations/snntorch_adapter.py"},
    "norse": {"htaf_snn/integrations/norse_adapter.py"},
    "typer": {"htaf_snn/cli.py"},
    "tonic": {"neuromorphic_datasets/_nmnist.py"},
}


def loaded(code, names=HEAVY):
    script = f"{code}\nimport sys\nprint(*[name for name in {names!r} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return run.stdout.split()


def imports(path):
    """Absolute dotted names that a file imports, by statement or by `import_module("…")`."""
    package = list(path.relative_to(ROOT).with_suffix("").parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = [*base, *filter(None, [node.module])]
            yield from (".".join([*base, alias.name]) for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "import_module":
            yield from (arg.value for arg in node.args if isinstance(arg, ast.Constant))


def layer(name):
    parts = name.split(".")
    return LAYERS.index(parts[1]) if parts[0] == "htaf_snn" and len(parts) > 1 and parts[1] in LAYERS else None


def upward(path, names):
    own = layer(".".join(path.relative_to(ROOT).with_suffix("").parts))
    return [name for name in names if own is not None and layer(name) is not None and layer(name) > own]


def sources(package):
    return sorted((ROOT / package).rglob("*.py"))


def test_import_loads_only_torch_and_numpy():
    assert loaded("import htaf_snn, htaf_snn.surrogate, htaf_snn.functional, htaf_snn.models") == []
    assert loaded("import neuromorphic_datasets", ("tonic", "numba", "scipy", "sklearn", "matplotlib")) == []


def test_the_import_test_can_fail():
    assert loaded("import htaf_snn, scipy") == ["scipy"]


@pytest.mark.parametrize("path", sources("htaf_snn"), ids=lambda p: str(p.relative_to(ROOT)))
def test_arrows_point_one_way(path):
    names = list(imports(path))
    assert upward(path, names) == []
    if path.name not in ("training.py", "cli.py"):
        assert not [name for name in names if name.startswith("neuromorphic_datasets")]


def test_the_arrow_test_can_fail():
    assert upward(ROOT / "htaf_snn/functional.py", ["htaf_snn.surrogate.HTAF"])
    assert "htaf_snn.surrogate.HTAF" in set(imports(ROOT / "htaf_snn/__init__.py"))


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


def test_no_file_is_named_like_a_library():
    taken = {"torch", "snntorch", "norse", "tonic", "numpy", "scipy", "numba", "triton", "matplotlib", "typer"}
    stems = {path.stem for package in ("htaf_snn", "neuromorphic_datasets", "tests") for path in sources(package)}
    assert not stems & taken
