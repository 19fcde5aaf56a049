"""The tutorials run from scratch, and their committed outputs are fit for readers."""

import importlib.util
import re
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "tutorials").glob("*.ipynb"))
SECONDS = 300  # per cell, on a busy machine


def read(path):
    return nbformat.read(path, as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def faults(notebook):
    """Return the defects of a notebook's outputs."""
    outputs = [output for cell in code(notebook) for output in cell.outputs]
    streams = "".join(output.text for output in outputs if output.output_type == "stream")
    defects = ["error" for output in outputs if output.output_type == "error"]
    defects += ["standard error" for output in outputs if output.get("name") == "stderr"]
    defects += ["a path of a machine" for _ in re.findall(r"/(?:tmp|home|root|work|usr)/", streams)]
    if not any("image/png" in output.get("data", {}) for output in code(notebook)[-1].outputs):
        defects.append("no figure at the end")
    if not notebook.cells[-1].source.startswith("**Exercise.**"):
        defects.append("no exercise")
    return defects


def test_they_are_numbered():
    assert [path.name[:2] for path in NOTEBOOKS] == [f"{number:02}" for number in range(1, 13)]
    for path in NOTEBOOKS:
        title = read(path).cells[0].source.splitlines()[0]
        assert title.startswith(f"# {path.name[:2]} · ")


def test_they_are_listed_in_the_readme():
    readme = (ROOT / "README.md").read_text()
    assert [path.name for path in NOTEBOOKS if f"(tutorials/{path.name})" not in readme] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_outputs(path):
    notebook = read(path)
    assert faults(notebook) == []
    assert [cell.execution_count for cell in code(notebook)] == list(range(1, len(code(notebook)) + 1))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_one_line_switches_to_real_data_and_one_to_a_gpu(path):
    source = "\n".join(cell.source for cell in code(read(path)))
    assert re.search(r"^DATASET, DATA_ROOT = ", source, re.MULTILINE)
    assert re.search(r"^DEVICE = ", source, re.MULTILINE) and source.count("DEVICE") > 1


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_first_cell_installs_the_package_where_it_is_missing(path, monkeypatch):
    ran, source = [], TransformerManager().transform_cell(code(read(path))[0].source)
    shell = SimpleNamespace(run_line_magic=lambda name, words: ran.append((name, words)))
    names = {"get_ipython": lambda: shell}
    exec(source, names)
    assert ran == []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "htaf_snn" else pytest.fail(name))
    exec(source, names)
    ((name, words),) = ran
    assert name == "pip" and words.startswith("install --quiet {PROJECT}")
    assert ('"nir>=1.0.7"' in words) == path.name.startswith("10")
    assert (path.parent / names["PROJECT"] / "setup.cfg").is_file()


def text(number):
    """Return what a notebook has printed."""
    return "".join(output.get("text", "") for cell in code(read(NOTEBOOKS[number - 1])) for output in cell.outputs)


def printed(number, pattern):
    """Return the numbers after a pattern in what a notebook has printed."""
    return [float(value) for value in re.findall(pattern + r"([\d.]+\d)", text(number))]


@pytest.mark.parametrize("number", [2, 3])
def test_the_stepped_network_learns_what_the_fused_one_does(number):
    (fused,), (stepped,) = (printed(number, rf"{way} (?=0\.\d{{4}})") for way in ("fused", "stepped"))
    assert fused == stepped > 0.8


def test_fusing_keeps_as_much_memory_and_bfloat16_less():
    stepped, fused, narrow = (
        printed(5, rf"steps, {way} +[\d.]+ ms +") for way in ("stepped", "fused", "fused, bfloat16")
    )
    assert len(stepped) == 3 and fused == stepped
    assert all(half < 0.8 * whole for half, whole in zip(narrow, fused, strict=True))


def test_the_own_neuron_and_the_run_for_predictions_learn():
    (resonators,), (leaky,) = (printed(11, f"{name} +test accuracy ") for name in ("resonators", "leaky"))
    assert resonators > 0.9 and leaky > 0.8
    assert printed(12, "test accuracy: ")[0] > 0.9
    assert re.findall(r"drawn (\d): (\d) ", text(12)) == [("2", "2"), ("1", "1"), ("3", "3")]


@pytest.mark.thorough
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path, tmp_path):
    if path.name.startswith("10") and tuple(map(int, version("nir").split("."))) < (1, 0, 7):
        pytest.skip("needs NIR 1.0.7, which is not installed beside sinabs")
    notebook = read(path)
    for cell in code(notebook):
        cell.outputs, cell.execution_count = [], None
    NotebookClient(notebook, timeout=SECONDS, resources={"metadata": {"path": tmp_path}}).execute()
    # The first use of a data set shows a progress bar.
    assert set(faults(notebook)) <= {"standard error"}


def test_the_tests_can_fail():
    cell = nbformat.v4.new_code_cell("1 / 0")
    cell.outputs = [
        nbformat.v4.new_output("stream", name="stderr", text="a warning"),
        nbformat.v4.new_output("stream", name="stdout", text="written to /home/me/net.pt"),
        nbformat.v4.new_output("error", ename="ZeroDivisionError", evalue="", traceback=[]),
    ]
    notebook = nbformat.v4.new_notebook(cells=[cell])
    assert faults(notebook) == ["error", "standard error", "a path of a machine", "no figure at the end", "no exercise"]
    cell.outputs = []
    with pytest.raises(Exception, match="ZeroDivisionError"):
        NotebookClient(notebook).execute()
