"""Sparse heads over bits, real concepts and the latents of an autoencoder, and the claim that compares them."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from htaf_snn import concepts, models, training

sys.path.append(str(Path(__file__).parents[2]))  # at the end, so that the installed package is tested

from benchmarks.evidence import claims, page, running, sparse_heads


def loader_of(n, seed):
    """Images of four classes, each with a bright quarter of its own."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (n,), generator=generator)
    x = 0.3 * torch.rand(n, 4, 4, generator=generator) + nn.functional.one_hot(labels, 4)[:, :, None]
    return [(part.view(-1, 1, 4, 4), numbers) for part, numbers in zip(x.split(64), labels.split(64), strict=True)]


@pytest.fixture
def model():
    torch.manual_seed(0)
    return models.ICBM(nn.Flatten(), 12, 4, in_features=16, surrogate="relu")


def test_features_are_those_of_the_model(model):
    loader = loader_of(100, 0)
    found = sparse_heads.features_of(model, loader)
    x, labels = (torch.cat(parts) for parts in zip(*loader, strict=True))
    assert torch.equal(found.backbone, x.flatten(1)) and torch.equal(found.labels, labels)
    assert torch.equal(found.concepts, model.eval().concepts(x))
    maps = models.ICBM(nn.Identity(), 5, 4, in_features=1, surrogate="relu")
    assert torch.equal(sparse_heads.features_of(maps, loader).backbone, x.mean((2, 3)))


def test_a_sparse_head_over_real_concepts(model):
    loaders = loader_of(400, 0), loader_of(200, 1)
    found = sparse_heads.unbinarised(model, *loaders, most=3)
    assert found["test_accuracy"] > 0.8 and found["weights_per_class"] <= 3
    assert found["dense_accuracy"] == training.evaluate(model, loaders[1])["accuracy"]


def test_a_sparse_head_over_bits_is_that_of_sparsify():
    torch.manual_seed(0)
    model, loaders = models.ICBM(nn.Flatten(), 12, 4, in_features=16), (loader_of(400, 0), loader_of(200, 1))
    found = sparse_heads.binary(model, *loaders, most=3)
    concepts.sparsify(model, loaders[0], 3, progress=False)
    assert found["test_accuracy"] == training.evaluate(model, loaders[1])["accuracy"]


def test_a_missing_library_is_named(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "sae_lens", None)
    with pytest.raises(ImportError, match="SAELens is not installed; pip install sae-lens"):
        sparse_heads.autoencoder(model, loader_of(64, 0), loader_of(64, 1))


def test_a_sparse_autoencoder(model):
    pytest.importorskip("sae_lens", reason="sae-lens is not installed")
    loaders = loader_of(600, 0), loader_of(200, 1)
    before = torch.random.get_rng_state()
    found = sparse_heads.autoencoder(model, *loaders, most=3, active=4, epochs=200)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert found["test_accuracy"] > 0.8 and 0.4 < found["explained"] < 1 and 0 <= found["dead"] < 12
    assert sparse_heads.autoencoder(model, *loaders, most=3, active=4, epochs=200) == found


@pytest.mark.thorough
@pytest.mark.usefixtures("workers_here")
def test_the_claim_about_concepts(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sae_lens", None)
    claim = replace(claims.named("concepts-fashion-mnist"), lrs=(8e-3, 16e-3), seeds=2, most=4)
    arms = {name: claim.arms[name] for name in ("htaf", "relu")}
    path = running.run(replace(claim, arms=arms), quick=True, data=None, out=tmp_path, workers=1)
    result = json.loads(path.read_text())
    [part] = result["parts"].values()
    assert [(row["arm"], len(row["accuracies"])) for row in part["rows"]] == [("htaf", 2), ("relu", 2)]
    for row in part["rows"]:
        tried = {one["lr"]: one["val_accuracy"] for one in part["selection"] if one["arm"] == row["arm"]}
        assert tried[row["lr"]] == max(tried.values()) and len(tried) == 2
        assert 0 < row["stability_by_chance"] <= row["stability"] <= 1
    assert [row["leakage"] is None for row in part["rows"]] == [False, True]
    bits, real, latents = part["heads"]
    assert len(bits["accuracies"]) == len(real["accuracies"]) == 2
    assert latents["not_measured"] == "SAELens is not installed; pip install sae-lens"
    text = page.page([result])
    assert f"| htaf | {part['rows'][0]['mean']:.3f} |" in text and "real concepts of relu" in text
