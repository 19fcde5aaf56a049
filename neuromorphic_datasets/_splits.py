"""The division of recordings and images: stratified, with every class in every part."""

import hashlib
from collections.abc import Sequence

import numpy as np

TEST_FRACTION = 0.2
# Those that messages suggest.
_FRACTIONS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def divided(
    argument: str,
    targets: np.ndarray,
    pool: np.ndarray,
    fraction: float,
    seed: int,
    given: float | None = None,
    groups: np.ndarray | None = None,
    *,
    classes: Sequence[str],
) -> tuple[np.ndarray, np.ndarray]:
    """Divide the indices in `pool` into two parts, the second a stratified `fraction`, each ascending.

    Messages show `given`, the argument's own value, if it is another, and the names of the `classes`. Indices of equal
    `groups` stay together.

    Raises:
        ValueError: naming `argument`, if a class would be missing from a part.
    """
    if fraction == 0:
        return pool, pool[:0]
    labels, counts = np.unique(targets[pool], return_counts=True)
    if groups is not None:
        wholes = {label: len(np.unique(groups[pool][targets[pool] == label])) for label in labels}
        rarest = min(wholes, key=lambda label: wholes[label])
        if wholes[rarest] < 2:
            raise ValueError(
                f"{argument}: expected pieces of two recordings or more of every class, as those of one recording stay "
                f"in one part, got {wholes[rarest]} of class {classes[rarest]}; set the parts yourself, as (train, "
                "test)"
            )
    parts = _with_all_classes(targets, pool, fraction, seed, groups)
    if parts is None:
        raise ValueError(
            f"{argument}: expected a fraction that puts recordings of every class into both parts of the {len(pool)} "
            f"recordings, of which the rarest class, {classes[labels[counts.argmin()]]}, has {counts.min()}, got "
            f"{fraction if given is None else given}; {_remedy(argument, targets, pool, fraction, seed, groups)}"
        )
    return np.sort(parts[0]), np.sort(parts[1])


def _with_all_classes(
    targets: np.ndarray, pool: np.ndarray, fraction: float, seed: int, groups: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the two parts, or None if a class would be missing from one."""
    try:
        parts = _parted(targets, pool, fraction, seed, groups)
    except ValueError:
        return None
    n_classes = len(np.unique(targets[pool]))
    return parts if all(len(np.unique(targets[part])) == n_classes for part in parts) else None


def _remedy(
    argument: str, targets: np.ndarray, pool: np.ndarray, fraction: float, seed: int, groups: np.ndarray | None
) -> str:
    """Return which fraction next to this one works, or what else to do."""
    working = (
        other
        for other in sorted(_FRACTIONS, key=lambda other: abs(other - fraction))
        if _with_all_classes(targets, pool, other, seed, groups) is not None
    )
    found = next(working, None)
    if argument == "val_fraction":
        return f"use {'' if found is None else f'for example {found}, or '}0 for no validation"
    if argument == "train_fraction":
        return f"use {'' if found is None else f'for example {round(1 - found, 2)}, or '}1 for all"
    folders = "put the recordings into folders train/ and test/, with the class folders in each"
    return (
        folders
        if found is None or argument != "test_fraction"
        else f"set test_fraction={found} in nd.loaders, or {folders}"
    )


def _parted(
    targets: np.ndarray, pool: np.ndarray, fraction: float, seed: int, groups: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.model_selection import train_test_split

    if groups is None:
        train, rest = train_test_split(pool, test_size=fraction, stratify=targets[pool], random_state=seed)
        return train, rest
    wholes, first = np.unique(groups[pool], return_index=True)
    of_whole = targets[pool][first]
    # Annotated pieces of one recording have several labels, by whose first one wholes cannot be stratified.
    is_one = bool((of_whole[np.searchsorted(wholes, groups[pool])] == targets[pool]).all())
    train, rest = train_test_split(wholes, test_size=fraction, stratify=of_whole if is_one else None, random_state=seed)
    return pool[np.isin(groups[pool], train)], pool[np.isin(groups[pool], rest)]


def fixed_test_part(
    targets: np.ndarray,
    classes: Sequence[str],
    groups: np.ndarray | None = None,
    fraction: float = TEST_FRACTION,
    argument: str = "targets",
) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of training and test, a stratified fraction, of a set without a published test part.

    It is always the same, whatever the seed of a training.

    Raises:
        ValueError: naming `argument`, if a class would be missing from a part.
    """
    return divided(argument, targets, np.arange(len(targets)), fraction, 0, groups=groups, classes=classes)


def published_test_part(targets: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of training and test of a published set that its publisher has not divided.

    In each class the recordings are ordered by the SHA-256 of their names, "class/file", and the first fifth is the
    test part: the same for everyone who has the whole set, whatever the system and the versions.

    Raises:
        ValueError: if a class would be missing from a part.
    """
    hashes = np.array([hashlib.sha256(name.encode()).hexdigest() for name in names])
    order = np.lexsort((hashes, targets))
    labels, starts, counts = np.unique(targets[order], return_index=True, return_counts=True)
    if counts.min() < 5:
        raise ValueError(
            f"targets: expected five recordings per class or more, got {counts.min()} of {labels[counts.argmin()]}"
        )
    test = np.concatenate([order[start : start + count // 5] for start, count in zip(starts, counts, strict=True)])
    return np.setdiff1d(order, test), np.sort(test)


def fold_of(
    targets: np.ndarray, fold: int, folds: int, seed: int, groups: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the (train, test) indices of one of the stratified folds, in which equal `groups` stay together."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    rarest = np.unique(targets, return_counts=True)[1].min()
    if folds > rarest:
        raise ValueError(f"folds: expected at most {rarest}, the number of recordings of the rarest class, got {folds}")
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    splitter = kind(folds, shuffle=True, random_state=seed)
    return list(splitter.split(targets, targets, groups))[fold]
