"""Implicit concept bottleneck models: train, explain, intervene, measure.

Example:
    >>> import tempfile
    >>> from htaf_snn import models
    >>> from neuromorphic_datasets import images
    >>> train, val, test = images.loaders("digits", batch_size=256)
    >>> model = models.ICBM(models.ImageEncoder(1, 4), n_concepts=16, n_classes=10)
    >>> folder = tempfile.TemporaryDirectory()
    >>> _ = fit(model, train, val, recipe=ConceptRecipe(epochs=1), out=folder.name, progress=False)
    >>> why = explain(model, test.dataset[0][0])
    >>> codes(model, test).shape, abs(why.bias + sum(why.contributions.values()) - why.score) < 1e-6
    ((360, 16), True)
    >>> folder.cleanup()
"""

from ..configuration import ConceptRecipe, ConceptRun
from .atlas import write_atlas
from .coding import Codes, codes
from .explaining import Explanation, Rules, class_weights, examples, explain, heat_map, profiles, rules
from .fitting import fit, penalties
from .measures import intervention_curve, measure, stability
from .runs import train
from .sparse import PathStep, SparseHead, sparse_head, sparsify

__all__ = [
    "Codes",
    "ConceptRecipe",
    "ConceptRun",
    "Explanation",
    "PathStep",
    "Rules",
    "SparseHead",
    "class_weights",
    "codes",
    "examples",
    "explain",
    "fit",
    "heat_map",
    "intervention_curve",
    "measure",
    "penalties",
    "profiles",
    "rules",
    "sparse_head",
    "sparsify",
    "stability",
    "train",
    "write_atlas",
]
