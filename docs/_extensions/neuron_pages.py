"""A page for each neuron: equations, states and parameters, the kernels that run it, and its layers and function."""

from __future__ import annotations

import inspect
import sys

import torch
from docstrings import as_rest
from rest import entry, heading, listing, summary, table, toctree
from sphinx.ext.napoleon import Config, GoogleDocstring

from htaf_snn import functional, nn
from htaf_snn.kernels import _dispatch
from htaf_snn.neurons import NEURONS, Neuron
from htaf_snn.neurons.words import described

_REQUIRED = {"alpha": 0.9, "beta": 0.8, "C": 5.0}


def layers(neuron: Neuron) -> list[type[nn.NeuronLayer]]:
    """Return the layers of a neuron: over sequences, and recurrent."""
    classes = [getattr(nn, name) for name in nn.__all__]
    return [cls for cls in classes if inspect.isclass(cls) and cls.__dict__.get("definition") is neuron]


def made(cls: type[nn.NeuronLayer], **arguments) -> nn.NeuronLayer:
    """Return a layer of three neurons."""
    parameters = cls.definition.parameters
    given = {name: _REQUIRED.get(name, 0.5) for name, default in parameters.items() if default is None}
    taken = inspect.signature(cls.__init__).parameters
    sizes = {name: 3 for name in ("input_size", "hidden_size", "linear_features") if name in taken}
    return cls(**sizes, **given, **arguments)


def learned(cls: type[nn.NeuronLayer]) -> list[str]:
    """Return the parameters that get a gradient, by trying."""
    names = list(cls.definition.parameters)
    in_snntorchs = issubclass(cls, nn.spiking.InSnnTorchsWords)
    layer = made(cls, backend="torch", **({f"learn_{n}": True for n in names} if in_snntorchs else {"learn": names}))
    output, state = layer(torch.ones(4, 2, 3))
    last = state if isinstance(state, tuple) else (state,)
    torch.autograd.backward([tensor.sum() for tensor in (output, *last) if tensor.requires_grad])
    return [name for name in names if getattr(layer, name).grad is not None]


def costs(cls: type[nn.NeuronLayer], backend: str) -> tuple[str, ...]:
    """Return the bytes that a backend saves, those with `save_dtype`, and whether it keeps the input."""
    if backend == "torch":
        return "autograd's", "the same", "autograd's"
    full, half = (made(cls, save_dtype=dtype).sources(backend) for dtype in (None, torch.bfloat16))
    return str(full.saved * 4), str(half.saved * 2), "yes" if full.keeps_input else "no"


_KERNELS = """\
Bytes are those saved for the backward pass per neuron and time step, besides the input where it is kept, in float32 and
with ``save_dtype=torch.bfloat16``. With ``checkpoint_every=K`` they are kept for K time steps at a time. ``torch``
saves what autograd needs, and alone has second derivatives.
"""


def kernels(neuron: Neuron) -> str:
    """Return the table of what computes a neuron."""
    rows = []
    for cls in layers(neuron):
        by_cost: dict[tuple[str, ...], list[str]] = {}
        for backend in _dispatch.backends():
            by_cost.setdefault(costs(cls, backend), []).append(f"``{backend}``")
        link = f":py:obj:`{cls.__name__} <htaf_snn.nn.{cls.__name__}>`"
        saves = "yes" if "checkpoint_every" in inspect.signature(cls).parameters else "no"
        rows += [(link, ", ".join(names), *cost, saves) for cost, names in by_cost.items()]
    head = ("layer", "backend", "bytes", "bfloat16", "keeps input", "``checkpoint_every``")
    return f"{_KERNELS}\n{table(head, rows)}"


def values(neuron: Neuron) -> str:
    """Return the tables of states, and of parameters and options."""
    states = [(f"``{name}``", f"``{value}``") for name, value in neuron.states.items()]
    trained = {name for cls in layers(neuron) for name in learned(cls)}
    words = [
        (f"``{name}``", summary(text), "yes" if name in trained else "no" if name in neuron.parameters else "")
        for name, text in described(neuron, {}).items()
    ]
    return table(("state", "at rest"), states) + "\n" + table(("parameter or option", "", "gradient"), words)


def page(neuron: Neuron) -> str:
    file = sys.modules[f"htaf_snn.neurons.{neuron.name}"]
    text = as_rest(inspect.getdoc(file).splitlines())
    entries = [entry(f"htaf_snn.nn.{cls.__name__}", cls) for cls in layers(neuron)]
    if neuron.name in functional.__all__:
        entries.append(entry(f"htaf_snn.functional.{neuron.name}", getattr(functional, neuron.name)))
    parts = [
        heading(neuron.title),
        str(GoogleDocstring(text, Config(napoleon_custom_sections=["Reference"]))),
        heading("States and parameters", "-"),
        values(neuron),
        heading("Kernels", "-"),
        kernels(neuron),
        heading("Code", "-"),
        "The update of one time step, from which the kernels and their gradients are made.\n",
        listing(inspect.getsource(neuron.update), "python"),
        heading("Layers and function", "-"),
        *entries,
    ]
    return "\n".join(parts)


def own() -> dict[str, Neuron]:
    """Return the neurons of the package by name."""
    return {name: neuron for name, neuron in NEURONS.items() if neuron.key == neuron.name}


def leave_out_equations(app, what, name: str, value, options, lines: list[str]) -> None:
    """Leave out of a layer's and a function's text what their page begins with."""
    key = name.rpartition(".")[2]
    neuron = getattr(value, "definition", None) if what == "class" else NEURONS.get(key)
    if neuron is not None and name in (f"htaf_snn.nn.{key}", f"htaf_snn.functional.{key}"):
        shown = inspect.getdoc(sys.modules[f"htaf_snn.neurons.{neuron.name}"])
        lines[:] = "\n".join(lines).removeprefix(shown).lstrip("\n").splitlines()


def pages() -> dict[str, str]:
    """Return the pages by their paths."""
    made = {f"reference/neurons/{name}.rst": page(neuron) for name, neuron in own().items()}
    rows = []
    for name, neuron in own().items():
        names = ", ".join(f":py:obj:`{cls.__name__} <htaf_snn.nn.{cls.__name__}>`" for cls in layers(neuron))
        text = summary(sys.modules[f"htaf_snn.neurons.{name}"].__doc__)
        rows.append((f":doc:`{neuron.title} <{name}>`", text, ", ".join(neuron.states), names))
    index = [heading("Neurons"), table(("neuron", "", "states", "layers"), rows), toctree(own(), "hidden")]
    made["reference/neurons/index.rst"] = "\n".join(index)
    return made
