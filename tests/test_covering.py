"""The combinations of parameters that are tested by default."""

from itertools import product
from types import SimpleNamespace

import pytest
from covering import LARGE_PRODUCT, covering


class Item:
    """As pytest's, of a test with three parameters, of which two are given together."""

    marks = [pytest.mark.parametrize("a, b", ()).mark, pytest.mark.parametrize("c", ()).mark]  # noqa: RUF012

    def __init__(self, ab, c):
        self.callspec = SimpleNamespace(params={"a": ab[0], "b": ab[1], "c": c})

    def iter_markers(self, name):
        return [mark for mark in self.marks if mark.name == name]


@pytest.mark.parametrize(("rows", "values"), [(30, 2), (4, 4), (3, 7)])
def test_every_value_is_tested_about_as_often_as_the_others(rows, values):
    items = [Item(pair, value) for pair, value in product([("x", f"row {i}") for i in range(rows)], "abcdefg"[:values])]
    chosen = [item.callspec.params for item in covering(items)]
    assert len(chosen) == max(rows, values, LARGE_PRODUCT)
    for name, count in (("b", rows), ("c", values)):
        found = [params[name] for params in chosen]
        assert len({*found}) == count
        assert max(map(found.count, found)) - min(map(found.count, found)) <= 1
