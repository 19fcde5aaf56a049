"""Fixtures of concept models."""

import pytest
from concept_models import new_model

from htaf_snn import concepts
from neuromorphic_datasets import images


@pytest.fixture(scope="module")
def loaders():
    return images.loaders("digits", batch_size=32)


@pytest.fixture(scope="module")
def trained(loaders, tmp_path_factory):
    model = new_model()
    train, val, _ = loaders
    concepts.fit(
        model, train, val, recipe=concepts.ConceptRecipe(epochs=4), out=tmp_path_factory.mktemp("icbm"), progress=False
    )
    return model


@pytest.fixture
def copied(trained):
    import copy

    return copy.deepcopy(trained)
