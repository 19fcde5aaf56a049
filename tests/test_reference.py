"""Every public function and class documents its parameters and methods, and has an example; test_docs runs those."""

import inspect
import re

import pytest
from public import names
from torch import nn


def is_ours(value):
    return (getattr(value, "__module__", None) or "").split(".")[0] in ("htaf_snn", "neuromorphic_datasets", __name__)


def public():
    """The public functions and classes by name."""
    return {name: value for name, value in names().items() if inspect.isroutine(value) or inspect.isclass(value)}


def docs(value):
    """Its docstring, and those of the classes of ours that it extends."""
    classes = [base for base in value.__mro__ if is_ours(base)] if inspect.isclass(value) else [value]
    return [inspect.cleandoc(one.__doc__ or "") for one in classes]


def parameters(value):
    """What the signature takes; the constructor of another library has its own documentation."""
    if inspect.isclass(value) and not is_ours(value.__init__):
        return []
    return [name for name in inspect.signature(value).parameters if not name.startswith("_")]


def described(value):
    """The names before colons in the sections Args and Attributes."""
    sections = re.findall(r"^(?:Args|Attributes):\n((?: .*\n)+)", "\n".join(docs(value)), re.M)
    heads = re.findall(r"^    ([*\w, ]+):", "\n".join(sections), re.M)
    return {name.strip("* ") for head in heads for name in head.split(",")}


def undocumented(cls):
    """Its methods and properties without a word; overrides may have that of what they override."""
    own = {name for base in cls.__mro__ if is_ours(base) for name in vars(base) if not name.startswith("_")}
    for name in sorted(own):
        member = inspect.getattr_static(cls, name)
        if inspect.isfunction(member) or isinstance(member, (property, classmethod, staticmethod)):
            # What a module takes and gives its class tells, as in torch.nn.
            told = "\nShape:" in "".join(docs(cls)) if name == "forward" else inspect.getdoc(getattr(cls, name))
            if not told:
                yield name


def missing(value):
    found = [] if re.search(r"^Example:\n(?:(?: .*)?\n)*? +>>> ", docs(value)[0], re.M) else ["Example"]
    found += [name for name in parameters(value) if name not in described(value)]
    return found + (list(undocumented(value)) if inspect.isclass(value) else [])


@pytest.mark.parametrize("name", public())
def test_the_reference_is_complete(name):
    assert missing(public()[name]) == []


def test_the_reference_test_can_fail():
    class Half(nn.Module):
        """Half.

        Args:
            size: of it.

        Example:
            Half(3)
        """

        def __init__(self, size, scale=1.0): ...

        def forward(self, x): ...

        def told(self):
            """Told."""

        def untold(self): ...

    assert missing(Half) == ["Example", "scale", "forward", "untold"]
    assert {"htaf_snn.HTAF", "htaf_snn.nn.Leaky", "neuromorphic_datasets.load"} <= set(public())
    assert "lr" in parameters(public()["htaf_snn.training.Run"])
