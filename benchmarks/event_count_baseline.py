"""Test a linear classifier that uses neither time nor spikes: logistic regression on event counts.

The features are the numbers of events per pixel and polarity over the whole recording, scaled to a maximum of 1. The
split is that of `htaf-snn train` with the same seed; the regularisation strength is chosen on the validation part.

    python benchmarks/event_count_baseline.py
    python benchmarks/event_count_baseline.py --dataset nmnist --root data/nmnist --folds 5
"""

from __future__ import annotations

import argparse
import json

import numpy as np
from sklearn.linear_model import LogisticRegression
from tqdm import tqdm

import neuromorphic_datasets as nd

INVERSE_STRENGTHS = (0.01, 0.1, 1.0, 10.0)


def counts_and_labels(loader) -> tuple[np.ndarray, np.ndarray]:
    """Return event counts (N, C * H * W) and labels (N,) of a loader with one time bin."""
    batches = [(frames[0].flatten(1).numpy(), labels.numpy()) for frames, labels in loader]
    return tuple(map(np.concatenate, zip(*batches, strict=True)))


def accuracy(arguments: argparse.Namespace, fold: int | None) -> float:
    """Return the test accuracy for one split of the data."""
    loaders = nd.loaders(
        arguments.dataset,
        root=arguments.root,
        batch_size=100,
        n_time_bins=1,
        val_fraction=0.1,
        seed=arguments.seed,
        folds=arguments.folds,
        fold=fold,
    )
    (x, y), (x_val, y_val), (x_test, y_test) = map(counts_and_labels, loaders)
    scale = x.max()
    models = [LogisticRegression(C=c, max_iter=2000).fit(x / scale, y) for c in INVERSE_STRENGTHS]
    best = max(models, key=lambda model: model.score(x_val / scale, y_val))
    return best.score(x_test / scale, y_test)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="saccade-digits", choices=nd.names())
    parser.add_argument("--root", help="folder of the data set")
    parser.add_argument("--folds", type=int, help="pool all samples and test on each of this many stratified folds")
    parser.add_argument("--seed", type=int, default=0, help="seed of the split")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    folds = [None] if arguments.folds is None else range(arguments.folds)
    accuracies = [accuracy(arguments, fold) for fold in tqdm(folds, desc="fits")]
    result = {"dataset": arguments.dataset, "test_accuracy": float(np.mean(accuracies)), "each": accuracies}
    print(json.dumps(result) if arguments.json else f"test accuracy {result['test_accuracy']:.4f}")


if __name__ == "__main__":
    main()
