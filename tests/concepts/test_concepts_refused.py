"""What concept models refuse, and that it is named."""

import pytest
import torch
from concept_models import N_CONCEPTS, new_model
from torch import nn

from htaf_snn import concepts, models, training
from htaf_snn import nn as hnn


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("values", "message"), [({N_CONCEPTS: 1}, "expected concepts 0 to 11"), ({-1: 1}, "got -1"), ({0: 2}, "0 or 1 for")]
)
def test_wrong_interventions_are_refused(trained, values, message):
    with pytest.raises(ValueError, match=message), trained.intervene(values):
        pass
    assert not trained._interventions


def test_functions_of_bits_refuse_real_concepts(loaders, tmp_path):
    model = models.ICBM(nn.Flatten(), 4, 10, surrogate="relu", in_features=64)
    found = concepts.codes(model, loaders[2])
    for make in (
        lambda: concepts.sparsify(model, loaders[0], 3),
        lambda: concepts.rules(model, found, found, 1),
        lambda: concepts.intervention_curve(model, found, found),
        lambda: concepts.write_atlas(model, loaders[2], tmp_path / "atlas.html"),
    ):
        with pytest.raises(ValueError, match=r"^model: expected concepts that are 0 or 1, got the real ones of relu"):
            make()
    assert concepts.measure(model, loaders[0], loaders[2])["intervention_auc"] is None


class Wrong(nn.Module):
    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, x):
        return self.output


LABELS = torch.zeros(5, dtype=torch.int64)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: models.ICBM("resnet", 4, 2), TypeError, "^backbone: expected a module"),
        (lambda: models.ICBM(nn.Flatten(), 0, 2), ValueError, "^n_concepts: expected an integer >= 1, got 0"),
        (lambda: models.ICBM(nn.Flatten(), 4, 1), ValueError, "^n_classes: expected an integer >= 2, got 1"),
        (lambda: models.ICBM(nn.Flatten(), 4, 2, in_features=0), ValueError, "^in_features"),
        (lambda: models.ICBM(nn.Flatten(), 4, 2, surrogate="magic"), ValueError, "unknown surrogate 'magic'"),
        (lambda: models.ICBM(Wrong((1, 2)), 4, 2)(torch.rand(5, 1)), TypeError, "^backbone: .* got tuple"),
        (lambda: models.ICBM(Wrong(torch.rand(2, 3, 4)), 4, 2)(torch.rand(5, 1)), ValueError, r"features \(B, D\)"),
        (lambda: models.ICBM(nn.Flatten(), 4, 2, in_features=9).eval()(torch.rand(1, 8)), ValueError, "expected 9 f"),
        (lambda: concepts.ConceptRecipe(entropy=-1), ValueError, r"^entropy: expected a number in \[0, 1e6\]"),
        (lambda: concepts.ConceptRecipe(epochs=0), ValueError, "^epochs"),
        (lambda: hnn.RelaxedBernoulli(0), ValueError, "^temperature"),
        (lambda: concepts.explain(new_model(), torch.rand(2, 1, 8, 8)), ValueError, "^image: expected one image"),
        (lambda: concepts.explain(new_model(), torch.rand(1, 8, 8), 10), ValueError, "^class_index: expected 0 to 9"),
        (lambda: concepts.heat_map(new_model(), torch.rand(1, 8, 8), 12), ValueError, "^concept: expected 0 to 11"),
        (lambda: concepts.heat_map(new_model(), torch.rand(1, 8, 8), 1, "magic"), ValueError, "^method"),
        (
            lambda: concepts.heat_map(new_model(), torch.rand(1, 8, 8), 1, patch=9),
            ValueError,
            "^patch: expected 1 to 8",
        ),
        (lambda: concepts.codes(new_model(), []), ValueError, "^loader: expected at least one image"),
        (lambda: concepts.Codes.of(torch.ones(3, 2), LABELS), ValueError, "^concepts: expected"),
        (lambda: concepts.Codes.of(torch.ones(5, 2), LABELS).nearest(torch.ones(3)), ValueError, "^code: expected"),
        (
            lambda: concepts.Codes.of(torch.ones(5, 2), LABELS).nearest(torch.ones(2), 6),
            ValueError,
            "^k: expected 1 to",
        ),
        (lambda: concepts.Codes.of(torch.ones(5, 2), LABELS).save("codes.csv"), ValueError, "^path: expected .npz"),
        (
            lambda: concepts.profiles(concepts.Codes.of(torch.ones(5, 2), LABELS), 2, {"a": [1]}),
            ValueError,
            "'a', got 1",
        ),
        (lambda: concepts.stability([concepts.Codes.of(torch.ones(5, 2), LABELS)]), ValueError, "^codes: expected two"),
        (lambda: concepts.class_weights(new_model(), 10), ValueError, "^class_index"),
        (lambda: concepts.examples(new_model(), []), ValueError, "^loader"),
        (lambda: concepts.rules(new_model(), None, None, 11), ValueError, "^class_index"),
        (lambda: concepts.rules(new_model(), None, None, 1, depth=0), ValueError, "^depth"),
        (lambda: concepts.Codes.load("none.npz"), FileNotFoundError, "^none.npz: expected saved codes, got no file"),
        (lambda: concepts.Codes.load(__file__), ValueError, "expected codes of htaf-snn, got a damaged or other file"),
        (lambda: new_model().intervene([7]).__enter__(), TypeError, "^values: expected a mapping"),
        (
            lambda: concepts.explain(new_model(), torch.ones(1, 8, 8).byte()),
            TypeError,
            r"^image: expected a float.*uint8",
        ),
        (lambda: concepts.explain(new_model(), torch.full((1, 8, 8), torch.nan)), ValueError, "^image: .*finite"),
        (lambda: concepts.sparsify(new_model(), [], 13), ValueError, "^max_concepts_per_class: expected 1 to 12"),
        (lambda: concepts.sparsify(new_model(), [], 3, steps=0), ValueError, "^steps: expected an integer >= 1"),
        (
            lambda: concepts.sparsify(new_model(), [(torch.rand(5, 1, 8, 8), LABELS)], 3),
            ValueError,
            r"^labels: expected two classes or more, got only \[0\]",
        ),
    ],
)
def test_bad_input_is_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_fit_does_not_overwrite_another_run(tmp_path, loaders):
    options = {"recipe": concepts.ConceptRecipe(epochs=1), "out": tmp_path, "progress": False}
    concepts.fit(new_model(), loaders[0], **options)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=r"^out: expected a folder without a run"):
        concepts.fit(new_model(), loaders[0], **options)
    (tmp_path / training.CHECKPOINT).rename(tmp_path / "moved")
    with pytest.raises(ValueError, match=r"^out: expected a folder without a run"):
        concepts.fit(new_model(), loaders[0], **options)
    (tmp_path / "moved").rename(tmp_path / training.CHECKPOINT)
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}
    concepts.fit(new_model(), loaders[0], **options | {"recipe": concepts.ConceptRecipe(epochs=2)}, resume=True)


def test_images_of_another_shape_than_in_training_are_refused(trained):
    assert trained.image_shape == (1, 8, 8)
    with pytest.raises(ValueError, match=r"^x: expected images \(B, 1, 8, 8\), got \(1, 1, 28, 28\)"):
        concepts.explain(trained, torch.rand(1, 28, 28))


def test_a_refused_training_leaves_the_image_shape(copied, loaders, tmp_path):
    x, labels = torch.rand(8, 3, 8, 8), torch.arange(8)
    other = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, labels), batch_size=4)
    with pytest.raises(ValueError, match="expected images"):
        concepts.fit(copied, other, out=tmp_path / "new", progress=False)
    (tmp_path / training.CHECKPOINT).touch()
    wider = torch.utils.data.TensorDataset(x[:, :1].repeat(1, 1, 2, 2), labels)
    with pytest.raises(ValueError, match=r"^out: expected a folder without a run"):
        concepts.fit(copied, torch.utils.data.DataLoader(wider, batch_size=4), out=tmp_path, progress=False)
    assert copied.image_shape == (1, 8, 8)


def test_a_wrong_label_in_a_later_batch_is_refused(tmp_path):
    batches = torch.utils.data.TensorDataset(torch.rand(8, 1, 8, 8), torch.tensor([0, 1, 0, 1, 0, 1, 2, 1]))
    loader = torch.utils.data.DataLoader(batches, batch_size=4)
    with pytest.raises(ValueError, match=r"^labels: expected 0 to 1, got 0 to 2"):
        concepts.fit(models.ICBM(nn.Flatten(), 4, 2), loader, out=tmp_path, progress=False)


def test_fit_refuses_labels_that_do_not_fit(tmp_path, loaders):
    model = models.ICBM(nn.Flatten(), 4, 9)
    with pytest.raises(ValueError, match=r"^labels: expected 0 to 8, got 0 to 9; the network has 9 classes"):
        concepts.fit(model, loaders[0], out=tmp_path / "out")
    with pytest.raises(TypeError, match=r"^model: expected an ICBM, got Linear"):
        concepts.fit(nn.Linear(2, 2), loaders[0], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
