"""Interventions: accepted numbers and values, nested blocks, copies."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from htaf_snn import models

N_CONCEPTS = 6


@pytest.fixture
def model():
    torch.manual_seed(0)
    return models.ICBM(nn.Flatten(), N_CONCEPTS, 3, in_features=16).eval()


X = torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("number", [2, np.int64(2), np.uint8(2), torch.tensor(2)], ids=lambda n: type(n).__name__)
@pytest.mark.parametrize("value", [0, 1.0, True, np.float32(1), np.bool_(False), torch.tensor(1)], ids=repr)
def test_numbers_of_any_kind(model, number, value):
    with torch.no_grad(), model.intervene({number: value}):
        assert (model.concepts(X)[:, 2] == float(value)).all()


@pytest.mark.parametrize(
    "values",
    [[0, 1, 1, 0], np.array([0, 1, 1, 0]), torch.tensor([False, True, True, False])],
    ids=lambda v: str(type(v)),
)
def test_a_value_per_image(model, values):
    with torch.no_grad(), model.intervene({np.int32(5): values, 0: 1}):
        found = model.concepts(X)
    assert found[:, 5].tolist() == [0, 1, 1, 0] and found[:, 0].tolist() == [1] * 4
    with pytest.raises(ValueError, match=r"^values: expected 3 for concept 5, one per image, got 4"):
        with model.intervene({5: values}):
            model(X[:3])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({6: 1}, "expected concepts 0 to 5, got 6"),
        ({np.int64(-1): 1}, "expected concepts 0 to 5, got"),
        ({True: 1}, "expected concepts 0 to 5, got True"),
        ({1.0: 1}, "expected concepts 0 to 5, got 1.0"),
        ({"1": 1}, "expected concepts 0 to 5, got '1'"),
        ({torch.tensor([1, 2]): 1}, "expected concepts 0 to 5, got tensor"),
        ({1: 2}, "expected 0 or 1 for concept 1, or .* got 2"),
        ({1: float("nan")}, "expected 0 or 1 for concept 1"),
        ({1: None}, "expected 0 or 1 for concept 1"),
        ({1: [0, 1, 0.5, 1]}, "expected 0 or 1 for concept 1"),
        ({1: np.ones((4, 1))}, "expected 0 or 1 for concept 1"),
    ],
    ids=str,
)
def test_bad_interventions_are_refused(model, values, message):
    with pytest.raises(ValueError, match=f"^values: {message}"), model.intervene(values):
        pass
    assert not model._interventions


def test_blocks_may_end_in_any_order(model):
    plain = model.concepts(X)
    outer, inner = model.intervene({1: 1, 2: 1}), model.intervene({1: 0, 3: 1})
    outer.__enter__()
    inner.__enter__()
    assert model.concepts(X)[0, [1, 2, 3]].tolist() == [0, 1, 1]
    outer.__exit__(None, None, None)
    found = model.concepts(X)
    assert found[0, [1, 3]].tolist() == [0, 1] and torch.equal(found[:, 2], plain[:, 2])
    inner.__exit__(None, None, None)
    assert torch.equal(model.concepts(X), plain)


def test_equal_blocks_end_one_by_one(model):
    with model.intervene({1: 1}):
        with model.intervene({1: 1}):
            pass
        assert (model.concepts(X)[:, 1] == 1).all()
    values = {1: torch.ones(4)}
    with model.intervene(values):
        values[1].zero_()
        values[2] = 1
        assert (model.concepts(X)[:, 1] == 1).all()


def saved(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, copy.copy, lambda m: pickle.loads(pickle.dumps(m)), saved])
def test_copies_have_no_interventions(model, duplicate):
    plain = model.concepts(X)
    with model.intervene({number: 1 for number in range(N_CONCEPTS)}):
        other = duplicate(model)
        assert torch.equal(other.concepts(X), plain)
        with other.intervene({0: 0}):
            assert (model.concepts(X) == 1).all()
    assert torch.equal(other.concepts(X), plain) and torch.equal(model.concepts(X), plain)
