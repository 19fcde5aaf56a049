"""Every example that a reader meets runs: in docstrings, and the code and the commands of every page."""

import ast
import contextlib
import doctest
import io
import json
import os
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from configparser import ConfigParser
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest
import test_imports
from commands import run

import htaf_snn
import neuromorphic_datasets
from htaf_snn.cli._app import app

ROOT = Path(__file__).parents[1]
DOCS = [page for page in sorted((ROOT / "docs").rglob("*.md")) if "/_" not in str(page.relative_to(ROOT))]
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS]
PAGES = [*TEXTS, *sorted((ROOT / "tutorials").glob("*.ipynb"))]
DESIGN = ROOT / "docs" / "design.md"
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
OPTIONAL = re.compile(r"^(?:from|import) (neurobench|spikingjelly)\b", re.MULTILINE)
BRIEFLY = {
    "train": "--epochs 1 --hidden 8,8",
    "icbm": "--epochs 1 --width 2",
    "compare": "--surrogates htaf,atan --slopes 1 --depths 1 --seeds 1 --epochs 1 --width 8 --workers 1 "
    "--train-fraction 0.2",
}
# Commands that install or need another machine, and what a reader puts in place of these words.
NOT_RUN = ("git clone", "cd ", "python -m pip install", "pytest", "jupyter", "ruff", "python -m benchmarks")
PLACEHOLDERS = {"DIR", "RUN", "CPU"}


@dataclass
class Block:
    """A fenced block of a page, and the text that it is said to print."""

    page: Path
    line: int
    language: str
    code: str
    prints: str | None

    @property
    def place(self):
        return f"{name(self.page)}:{self.line}"


def name(page):
    return str(page.relative_to(ROOT))


def blocks(page):
    """Return the fenced blocks of a page; a block `text` right behind one of Python is what that prints."""
    text, found = page.read_text(), []
    for match in re.finditer(r"^```(\w+)\n(.*?)^```\n(?:\n```text\n(.*?)^```)?", text, re.MULTILINE | re.DOTALL):
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(page, line, match[1], match[2], match[3]))
    return found


ALL_BLOCKS = [block for page in TEXTS for block in blocks(page)]
# A file of the package, whose imports are relative, is compared with the package below.
CODE = [b for b in ALL_BLOCKS if b.language in ("python", "sh", "c") and "\nfrom ." not in f"\n{b.code}"]


def lines_of(block):
    """Return the commands of a block of the shell, without comments, a continued line as one."""
    lines = block.code.replace("\\\n", " ").splitlines()
    return [line for line in (re.sub(r"(^|\s)#.*", "", line).strip() for line in lines) if line]


def is_run(command):
    return not command.startswith(NOT_RUN) and not PLACEHOLDERS & {*re.findall(r"\w+", command)}


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


def headings(text):
    """Return the anchors of a page's headings, as GitHub and MyST make them."""
    plain = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.*)", plain, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.usefixtures("workers_here")
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.thorough if name == "htaf_snn.compare" else ()) for name in MODULES],
)
def test_docstrings(name, request):
    if name in ("htaf_snn.nn.spiking", "htaf_snn.nn.recurrent"):
        request.getfixturevalue("uncompiled")  # to save a second for each neuron
    assert doctest.testmod(import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0


def test_the_docstring_test_can_fail():
    assert {"htaf_snn.surrogate.elementwise", "neuromorphic_datasets._frames"} < set(MODULES)
    module = import_module("htaf_snn.hardening")
    assert len([test for test in doctest.DocTestFinder().find(module) if test.examples]) >= 6


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """A folder for each page, in which its blocks run one after the other."""
    folders = {}

    def folder(page):
        if page not in folders:
            folders[page] = tmp_path_factory.mktemp(page.stem)
            own_data(folders[page])
        return folders[page]

    return folder


# Studies, and trainings of several networks, take seconds each.
SLOW = (
    "binary-networks.md",
    "compare-for-a-paper.md",
    "comparing.md",
    "concept-models.md",
    "own-surrogate.md",
    "several-gpus.md",
    "training-on-events.md",
)


@pytest.mark.usefixtures("workers_here")
@pytest.mark.parametrize(
    "block",
    [pytest.param(b, id=b.place, marks=pytest.mark.thorough if b.page.name in SLOW else ()) for b in CODE],
)
def test_blocks(block, folder_of, monkeypatch):
    folder = folder_of(block.page)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])  # what blocks save can be imported
    if block.language == "sh":
        for command in filter(is_run, lines_of(block)):
            run_command(command, folder)
    elif block.language == "c":
        (folder / re.match(r"/\* (\w+\.c) \*/\n", block.code)[1]).write_text(block.code)
    else:
        run_python(block, folder)


def run_python(block, folder):
    """Run a block; one that begins with a comment of a file's name is also saved in that file."""
    for library in OPTIONAL.findall(block.code):
        pytest.importorskip(library, reason=f"{library} is not installed")
    saved = re.match(r"# (\w+\.py)\n", block.code)
    if saved:
        (folder / saved[1]).write_text(block.code)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            exec(compile(block.code, block.place, "exec"), {"__name__": "__main__"})
    finally:
        htaf_snn.unregister()
        for module in [key for key, value in sys.modules.items() if of_folder(value, folder)]:
            del sys.modules[module]
    if block.prints is not None:
        assert printed.getvalue() == block.prints


def of_folder(module, folder):
    return str(getattr(module, "__file__", None) or "").startswith(f"{folder}{os.sep}")


def run_command(command, folder):
    """Run a line of the shell, trainings briefly and with little data."""
    first, *arguments = shlex.split(command)
    if first == "htaf-snn":
        brief = briefly(arguments, command)
        if arguments[0] in ("train", "icbm") and "--out" not in arguments:  # two may begin within a second
            brief += ["--out", tempfile.mkdtemp(dir=folder)]
        result = run(*arguments, *brief)
        assert result.exit_code == 0, result.output
        return
    if first == "torchrun":
        program = arguments.index("htaf-snn")
        pytest.importorskip("lightning_fabric", reason="lightning-fabric is not installed")
        brief = briefly(arguments[program + 1 :], command)
        launch = ["--standalone", "--nproc-per-node", "2", "-m", "htaf_snn"]
        program = [sys.executable, "-m", "torch.distributed.run", *launch, *arguments[program + 1 :], *brief]
    else:
        assert first in ("cc", "./digits"), f"{command}: expected a command that can be tested"
        if shutil.which("cc") is None:
            pytest.skip("no C compiler")
        program = [first, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(program, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stdout + finished.stderr


def briefly(arguments, command):
    """Return options that make a training or a study short."""
    brief = shlex.split(BRIEFLY.get(arguments[0], ""))
    if "--resume" in arguments:
        return []
    brief += ["--select-seeds", "1"] if {"--preset", "--select-seeds"} & {*arguments} else []
    if arguments[0] in ("train", "compare") and not {"bnn", "dhn"} & {*arguments} and "n_time_bins=" not in command:
        brief += ["--n-time-bins", "2"]
    if {"plif-net", "sew-resnet18"} & {*arguments}:
        brief = ["--width", "4", "--train-fraction", "0.05", "--epochs", "1", "--n-time-bins", "2"]
    return brief


@pytest.mark.parametrize("block", [block for block in CODE if block.language == "sh"], ids=lambda block: block.place)
def test_commands_have_options_that_exist(block):
    for command in filter(is_run, lines_of(block)):
        if command.startswith("htaf-snn"):
            app.parse_args(shlex.split(command)[1:], exit_on_error=False, print_error=False)


def own_data(folder):
    """Write the recordings and the code that the pages' commands name."""
    for name in ("left", "right"):
        (folder / "my_recordings" / name).mkdir(parents=True)
        for number in range(20):
            events = "\n".join(f"{1000 * t},{(t + number) % 8},{t % 5},{t % 2}" for t in range(20))
            (folder / "my_recordings" / name / f"{number}.csv").write_text(f"t,x,y,p\n{events}\n")
    code = "import neuromorphic_datasets as nd\ndef gestures():\n    return nd.EventFolder('my_recordings')\n"
    (folder / "my_sets.py").write_text(code)


def test_the_pages_have_blocks_and_commands_that_run():
    pages = {name(block.page) for block in CODE}
    assert {"README.md", "docs/start.md", "docs/guide/hardness.md", "docs/how-to/own-neuron.md"} <= pages
    run_here = [command for block in CODE if block.language == "sh" for command in lines_of(block) if is_run(command)]
    assert len(run_here) > 30 and {command.split()[0] for command in run_here} >= {"htaf-snn", "torchrun", "cc"}


def test_the_tests_of_blocks_can_fail(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    page.write_text("# A\n\n```python\n# a.py\nprint(1)\n```\n\n```text\n2\n```\n\n```sh\nhtaf-snn no  # b\nls\n```\n")
    python, shell = blocks(page)
    assert (python.place, python.prints, shell.place) == ("page.md:3", "2\n", "page.md:12")
    with pytest.raises(AssertionError):
        run_python(python, tmp_path)
    assert (tmp_path / "a.py").exists() and lines_of(shell) == ["htaf-snn no", "ls"]
    for command in lines_of(shell):
        with pytest.raises(AssertionError):
            run_command(command, tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_and_file_names(page):
    assert missing(prose(page), page.parent) == []


@pytest.mark.parametrize("page", TEXTS, ids=name)
def test_links_to_headings(page):
    text = page.read_text()
    for file, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#([^)\s]+)\)", text):
        assert anchor in headings((page.parent / file).read_text() if file else text), f"{file}#{anchor}"


def test_the_test_of_links_can_fail():
    text = "[a](docs/surrogates.png) [b](no.md) [c](https://a.org/b) `benchmarks/results/no.json` `runs/first`"
    assert missing(text, ROOT) == ["no.md", "benchmarks/results/no.json"]
    assert headings("# A b-c: `D`\n```sh\n# e\n```\n") == {"a-b-c-d"}


@pytest.mark.parametrize("page", TEXTS, ids=name)
def test_a_page_begins_with_its_title(page):
    assert page.read_text().startswith("# ")


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_extras_that_pages_name_exist():
    settings = ConfigParser()
    settings.read(ROOT / "setup.cfg")
    named = [text for page in TEXTS for text in re.findall(r'"(?:\.|htaf-snn)\[([\w,]+)\]"', page.read_text())]
    extras = {extra for text in named for extra in text.split(",")}
    assert extras <= {*settings["options.extras_require"]} and len(extras) > 5


def of_design(language, containing):
    [block] = [b for b in ALL_BLOCKS if b.page == DESIGN and b.language == language and containing in b.code]
    return block.code


def test_the_design_page_shows_the_surrogate_of_the_package():
    code = of_design("python", "class Triangle")
    own = (ROOT / "htaf_snn" / "surrogate" / "formulas" / "triangle.py").read_text()
    shown, actual = (
        [ast.dump(node) for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
        for source in (code, own)
    )
    assert shown == actual and len(actual) == 2
    exec(compile(code, "design.md", "exec"), {})


def test_the_design_page_shows_the_neuron_of_the_package():
    code = of_design("python", "NEURON")
    _, *own = ast.parse((ROOT / "htaf_snn" / "neurons" / "iaf.py").read_text()).body  # without the docstring
    assert [ast.dump(node) for node in ast.parse(code).body] == [ast.dump(node) for node in own]


def drawn(text):
    """Return what each part imports, from the drawing of the design page."""
    lines = [line.partition("←") for line in text.splitlines()]
    return {part.strip(): {*below.replace(",", " ").split()} for part, _, below in lines}


def test_the_design_page_draws_who_imports_whom():
    assert drawn(of_design("text", "←")) == test_imports.BELOW


def test_the_test_of_the_drawing_can_fail():
    assert drawn("a ← b, c\nd ←") == {"a": {"b", "c"}, "d": set()} != test_imports.BELOW
