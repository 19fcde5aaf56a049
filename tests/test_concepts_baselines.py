"""The baselines of `benchmarks/concept_baselines.py`: real features under a sparse head."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from htaf_snn import concepts, models, training

PATH = Path(__file__).parents[1] / "benchmarks" / "concept_baselines.py"


@pytest.fixture(scope="module")
def baselines():
    specification = importlib.util.spec_from_file_location("concept_baselines", PATH)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def loader_of(n, seed):
    """Images whose four classes are told apart by which quarter is bright."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (n,), generator=generator)
    x = 0.3 * torch.rand(n, 4, 4, generator=generator) + nn.functional.one_hot(labels, 4)[:, :, None]
    return [(part.view(-1, 1, 4, 4), numbers) for part, numbers in zip(x.split(64), labels.split(64), strict=True)]


@pytest.fixture
def model():
    torch.manual_seed(0)
    return models.ICBM(nn.Flatten(), 12, 4, in_features=16, surrogate="relu")


def test_features_are_those_of_the_model(baselines, model):
    loader = loader_of(100, 0)
    found = baselines.features_of(model, loader)
    x, labels = (torch.cat(parts) for parts in zip(*loader, strict=True))
    assert torch.equal(found.backbone, x.flatten(1)) and torch.equal(found.labels, labels)
    assert torch.equal(found.concepts, model.eval().concepts(x))
    maps = models.ICBM(nn.Identity(), 5, 4, in_features=1, surrogate="relu")
    assert torch.equal(baselines.features_of(maps, loader).backbone, x.mean((2, 3)))


def test_a_sparse_head_over_real_concepts(baselines, model):
    loaders = loader_of(400, 0), loader_of(200, 1)
    found = baselines.unbinarised(model, *loaders, most=3)
    assert found["test_accuracy"] > 0.8 and found["weights_per_class"] <= 3
    assert found["dense_accuracy"] == training.evaluate(model, loaders[1])["accuracy"]


def test_a_sparse_head_over_bits_is_that_of_sparsify(baselines):
    torch.manual_seed(0)
    model, loaders = models.ICBM(nn.Flatten(), 12, 4, in_features=16), (loader_of(400, 0), loader_of(200, 1))
    found = baselines.binary(model, *loaders, most=3)
    concepts.sparsify(model, loaders[0], 3, progress=False)
    assert found["test_accuracy"] == training.evaluate(model, loaders[1])["accuracy"]


def test_a_missing_library_is_named(baselines, model, monkeypatch):
    monkeypatch.setitem(sys.modules, "sae_lens", None)
    with pytest.raises(ImportError, match="SAELens is not installed; pip install sae-lens"):
        baselines.autoencoder(model, loader_of(64, 0), loader_of(64, 1))


def test_a_sparse_autoencoder(baselines, model):
    pytest.importorskip("sae_lens", reason="sae-lens is not installed")
    loaders = loader_of(600, 0), loader_of(200, 1)
    before = torch.random.get_rng_state()
    found = baselines.autoencoder(model, *loaders, most=3, active=4, epochs=200)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert found["test_accuracy"] > 0.8 and 0.4 < found["explained"] < 1 and 0 <= found["dead"] < 12
    assert baselines.autoencoder(model, *loaders, most=3, active=4, epochs=200) == found


def test_a_table_of_runs(baselines, tmp_path, monkeypatch):
    monkeypatch.setattr(baselines, "BASELINES", {k: v for k, v in baselines.BASELINES.items() if k != "autoencoder"})
    for seed in (0, 1):
        for name, more in (("relu", {"surrogate": "relu", "anneal": "none", "activity": 0.0}), ("htaf", {})):
            config = concepts.Config(epochs=2, width=4, n_concepts=12, batch_size=128, seed=seed, **more)
            concepts.run(config, tmp_path / f"digits-{name}-{seed}", progress=False)
    (tmp_path / "digits-relu-2").mkdir()  # a run that is not finished
    rows = baselines.table(tmp_path, "digits", 4)
    assert rows.keys() == {"htaf", "relu"} and all(len(row["accuracies"]) == 2 for row in rows.values())
    assert 0 < rows["relu"]["stability_by_chance"] <= rows["relu"]["stability"] <= 1
    json.dumps(rows, allow_nan=False)
