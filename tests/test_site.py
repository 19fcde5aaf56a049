"""The site builds without a warning, and its generated reference is whole."""

import html
import json
import re
import subprocess
import sys
import zlib
from importlib import import_module
from pathlib import Path

import public
import pytest
from browser import probe

for needed in ("sphinx", "furo", "myst_nb", "sphinx_copybutton"):
    pytest.importorskip(needed, reason=f"{needed} is not installed")
pytestmark = pytest.mark.thorough
docstrings, mathml, neuron_pages, pages, surrogate_pages = map(
    import_module, ("docstrings", "mathml", "neuron_pages", "pages", "surrogate_pages")
)
ROOT = Path(__file__).parents[1]
COMMANDS = [" ".join(words) for words in pages.command_names()]


def build(source, out):
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", source, out]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site") / "html"
    run = build("docs", out)
    assert run.returncode == 0, run.stderr
    return out


def article(path):
    """The part of a page that its source has written."""
    return re.search(r"<article.*?>(.*)</article>", path.read_text(), re.DOTALL)[1]


def test_every_public_name_has_an_entry(site):
    lines = zlib.decompress((site / "objects.inv").read_bytes().split(b"\n", 4)[4]).decode().splitlines()
    entries = {line.split()[0] for line in lines if " py:" in line}
    assert len(public.names()) > 250
    assert {*public.names()} - entries - set(public.MODULES) <= {"htaf_snn.configuration", "htaf_snn.deploy.steps"}


@pytest.mark.parametrize("name", surrogate_pages.surrogates())
def test_a_page_for_each_surrogate(name, site):
    text = article(site / "reference" / "surrogates" / f"{name}.html")
    assert len(re.findall(r"<path [^>]*#(?:2b8cbe|e6550d)", text)) >= 2
    assert text.count("<math") >= 2 and "merror" not in text
    assert "<td" in text and "primitive" in text and "&gt;&gt;&gt; " in text
    # Everything that has no colour of its own takes the text's.
    assert "#000000" not in text and "currentColor" in text


def test_the_other_names_of_a_surrogate_are_listed():
    made = surrogate_pages.pages()
    listed = made["reference/surrogates/index.rst"]
    assert "     - ``fast_sigmoid``\n     - ``superspike``\n" in listed and "``approx_sign``" in listed
    assert '``"fast_sigmoid"``; also ``superspike``.' in made["reference/surrogates/fast_sigmoid.rst"]
    assert "; also" not in made["reference/surrogates/htaf.rst"]


@pytest.mark.parametrize("name", neuron_pages.own())
def test_a_page_for_each_neuron(name, site):
    text = article(site / "reference" / "neurons" / f"{name}.html")
    equation = re.search(r"<pre>(.*?)</pre>", text, re.DOTALL)[1]
    assert "[t]" in html.unescape(re.sub("<.*?>", "", equation))
    assert all(word in text for word in ("numba", "triton", "at rest", "update", "Example"))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_page_for_each_command(command, site):
    text = article(site / "reference" / "commands" / f"{command.replace(' ', '-')}.html")
    assert f"Usage: htaf-snn {command}" in html.unescape(re.sub("<.*?>", "", text))


def test_the_commands_are_those_of_the_help_page():
    listed = re.findall(r"^│ (\w[\w-]*) {2,}", pages.help_text(), re.MULTILINE)
    assert {"train", "profile"} < {*COMMANDS} and {name.split()[0] for name in COMMANDS} == {*listed}


@pytest.mark.parametrize("path", sorted((ROOT / "tutorials").glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_tutorial_is_shown_with_its_outputs(path, site):
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    pictures = sum("image/png" in output.get("data", {}) for cell in cells for output in cell["outputs"])
    assert article(site / "tutorials" / f"{path.stem}.html").count("<img") == pictures


def test_search_finds_names_and_pages(site):
    index = json.loads((site / "searchindex.js").read_text().removeprefix("Search.setIndex(").removesuffix(")"))
    assert "Leaky" in {entry[-1] for entry in index["objects"]["htaf_snn.nn"]}
    assert {"HTAF", "Leaky", "htaf-snn train", "Results"} <= {*index["alltitles"]}
    assert "reference/surrogates/atan" in {index["docnames"][n] for n in flat(index["terms"]["arctan"])}


def flat(value):
    return value if isinstance(value, list) else [value]


def test_pages_need_no_network(site):
    found = [path for path in site.rglob("*.html")]
    assert len(found) > 80
    for path in found:
        assert not re.search(r'<(?:script|link|img|source)\b[^>]*(?:src|href)="(?:https?:)?//', path.read_text()), path


SHOWN = ("index", "results", "tutorials/01_htaf_in_five_minutes", "reference/surrogates/htaf")
SHOWN += ("reference/neurons/lif_refrac", "reference/modules/htaf_snn.nn", "reference/commands/train")


@pytest.mark.parametrize("width", [375, 1375])
@pytest.mark.parametrize("name", SHOWN)
def test_no_page_scrolls_sideways(name, width, site, tmp_path):
    text = (site / f"{name}.html").read_text().replace("<head>", f'<head><base href="{(site / name).as_uri()}">')
    # Chromium has no window as narrow as a telephone, but the same layout in a body as narrow.
    script = f"document.body.style.width = '{width}px'; return document.body.scrollWidth;"
    assert probe(text, script, tmp_path, max(width + 20, 500)) <= width


def test_what_is_wrong_on_a_page_fails_the_build(tmp_path):
    copied = f"import runpy\nglobals().update(runpy.run_path({str(ROOT / 'docs' / 'conf.py')!r}))\n"
    (tmp_path / "conf.py").write_text(
        f"{copied}extensions.remove('pages')\nhtml_static_path = []\nhtml_css_files = []\n"
    )
    text = "# Page\n\n`htaf_snn/nn/spiking.py` $x$ `htaf_snn.nn.Leaky`\n"
    (tmp_path / "index.md").write_text(text)
    # Entries of names are not built here, and links to them are quiet.
    assert build(tmp_path, tmp_path / "html").returncode == 0
    (tmp_path / "index.md").write_text(f"{text}\n[there](no.md) `tests/no.py` $\\nothing$\n")
    run = build(tmp_path, tmp_path / "html")
    assert run.returncode == 1
    assert all(word in run.stderr for word in ("'no.md'", "no such file: tests/no.py", "nothing"))


def test_formulas():
    assert mathml.converted(r"\tfrac12 x") == mathml.converted(r"\tfrac{1}{2} x") != mathml.converted(r"\tfrac{12} x")
    assert mathml.converted(r"\tfrac1\pi") == mathml.converted(r"\tfrac{1}{\pi}")
    assert mathml.converted(r"\big(x\bigr)") == mathml.converted("(x)")
    assert mathml.converted(r"\beta \tanh x") == mathml.converted(r"\beta\,\tanh x")


def test_docstrings_become_rest():
    text = "Sum *features|x| of a_ `b` by $a\n  _b$.\n\n    u = v        s = H(u)\n\nArgs:\n    x: * is a*b."
    made = "\n".join(docstrings.as_rest(text.splitlines()))
    assert r"Sum \*features\|x\| of a\_ ``b`` by :math:`a _b`." in made
    assert "::\n\n    u = v\n    s = H(u)\n" in made
    assert "Args:\n    x: * is a\\*b." in made


def test_names_in_code_are_links():
    home = "htaf_snn.surrogate.HTAF"
    assert [docstrings.linked(text, "index") for text in ("HTAF", "htaf_snn.HTAF", "surrogate.HTAF")] == [home] * 3
    assert docstrings.linked("alpha", "index") is docstrings.linked("nothing.at_all", "index") is None
    assert docstrings.linked("resolve", "htaf_snn.surrogate") == "htaf_snn.surrogate.resolve"


def test_links_of_and_to_tutorials():
    assert pages.tutorial("[a](../docs/results.md) [b](../README.md) [c](02.ipynb)") == (
        "[a](../results.md) [b](../../README.md) [c](02.ipynb)"
    )
    source = ["[a](../tutorials/01.ipynb) [b](../../tutorials/01.ipynb) [c](../README.md)"]
    pages.to_tutorials(None, "start", source)
    assert source == ["[a](tutorials/01.ipynb) [b](../tutorials/01.ipynb) [c](../README.md)"]


def test_the_site_of_an_older_checkout_is_cleared(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "pages", lambda: {"reference/new.rst": "new"})
    (tmp_path / "reference").mkdir()
    (tmp_path / "reference" / "old.rst").write_text("old")
    pages.write(type("App", (), {"srcdir": tmp_path}))
    assert [path.name for path in (tmp_path / "reference").iterdir()] == ["new.rst"]
