"""Writes the generated pages: the reference from the code, and the tutorials with their links."""

from __future__ import annotations

import inspect
import io
import re
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import neuron_pages
import public
import surrogate_pages
from cyclopts import App
from docstrings import as_rest
from rest import entry, heading, listing, summary, table, toctree
from rich.console import Console
from sphinx.pycode import ModuleAnalyzer

from htaf_snn.cli._app import app as commands

ROOT = Path(__file__).parents[2]


def data_entry(name: str, value: object) -> str:
    """Return the entry of a public value that is neither a class nor a function."""
    shown = textwrap.shorten(repr(value), 200, placeholder=" …")
    text = textwrap.indent("\n".join(as_rest(data_text(name, value))), "   ")
    return f".. py:data:: {name.rpartition('.')[2]}\n   :value: {shown}\n\n{text}\n"


def data_text(name: str, value: object) -> list[str]:
    """Return the lines below the assignment of a public value, in the module that makes it."""
    key = name.rpartition(".")[2]
    for module in [one for one in sys.modules if one.partition(".")[0] == name.partition(".")[0]]:
        if vars(sys.modules[module]).get(key) is value:
            text = ModuleAnalyzer.for_module(module).find_attr_docs().get(("", key))
            if text:
                return text
    raise ValueError(f"{name}: expected a docstring below its assignment, got none")


def module_page(module: str, elsewhere: set[str]) -> str:
    """Return the page of a module: a table of all its public names, and the entries of those without a page."""
    homes, values = public.homes(), public.names()
    own = [name for name in values if name.rpartition(".")[0] == module]
    rows, entries, aliases = [], [], []
    for name in own:
        key, value = name.rpartition(".")[2], values[name]
        if isinstance(value, ModuleType):
            rows.append((f":py:mod:`{key} <{value.__name__}>`", summary(value.__doc__)))
            continue
        is_documented = inspect.isclass(value) or inspect.isroutine(value)
        text = value.__doc__ if is_documented else "\n".join(data_text(name, value))
        rows.append((f":py:obj:`{key} <{homes[name]}>`", summary(text)))
        if homes[name] != name:
            aliases.append(f".. py:data:: {key}\n\n   The same as :py:obj:`{homes[name]}`.\n")
        elif name not in elsewhere:
            entries.append(entry(name, value) if is_documented else data_entry(name, value))
    text = [heading(module), f".. automodule:: {module}\n   :no-members:\n", table(("name", ""), rows), *entries]
    return "\n".join(text + ([heading("Also found here", "-"), *aliases] if aliases else []))


def help_text(*names: str) -> str:
    """Return what `--help` prints for a command."""
    console = Console(file=io.StringIO(), width=100, color_system=None, legacy_windows=False)
    commands.help_print([*names], console=console)
    return "\n".join(line.rstrip() for line in console.file.getvalue().strip().splitlines())


def command_names(app: App = commands, before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Return the words of every command, in the order of the help page."""
    names = []
    for name in app:
        if not name.startswith("-"):
            names += [(*before, name), *command_names(app[name], (*before, name))]
    return names


def command_page(words: tuple[str, ...]) -> str:
    """Return the page of a command."""
    title = " ".join(("htaf-snn", *words))
    return f"{heading(title)}\n{listing(help_text(*words), 'text')}"


def tutorial(text: str) -> str:
    """Return a notebook with its links as they are from docs/tutorials/."""
    return re.sub(r"\]\(\.\./(docs/)?", lambda match: "](../" if match[1] else "](../../", text)


def to_tutorials(app: Any, name: str, source: list[str]) -> None:
    """Let links to the notebooks, which lie beside docs/, lead to their pages."""
    source[0] = re.sub(r"\]\(\.\./((?:\.\./)*tutorials/)", r"](\1", source[0])


def pages() -> dict[str, str]:
    """Return the text of every generated page by its path below docs/."""
    made = {**surrogate_pages.pages(), **neuron_pages.pages()}
    elsewhere = {name for page in made.values() for name in re.findall(r"^\.\. auto\w+:: (\S+)", page, re.M)}
    for module in public.MODULES:
        made[f"reference/modules/{module}.rst"] = module_page(module, elsewhere)
    made["reference/modules/index.rst"] = f"{heading('Modules')}\n{toctree(public.MODULES)}"
    words = command_names()
    for one in words:
        made[f"reference/commands/{'-'.join(one)}.rst"] = command_page(one)
    made["reference/commands/index.rst"] = "\n".join(
        [heading("Commands"), listing(help_text(), "text"), toctree("-".join(one) for one in words)]
    )
    for path in sorted((ROOT / "tutorials").glob("*.ipynb")):
        made[f"tutorials/{path.name}"] = tutorial(path.read_text())
    return made


def write(app: Any) -> None:
    """Write the pages; those that have not changed keep their time, so that Sphinx does not read them again."""
    made = pages()
    for folder in ("reference", "tutorials"):
        for path in Path(app.srcdir, folder).rglob("*.*"):
            if str(path.relative_to(app.srcdir)) not in made:
                path.unlink()
    for name, text in made.items():
        path = Path(app.srcdir, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_text() != text:
            path.write_text(text)


def setup(app: Any) -> dict[str, Any]:
    app.connect("builder-inited", write)
    app.connect("autodoc-process-docstring", neuron_pages.leave_out_equations, priority=90)
    app.connect("source-read", to_tutorials)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
