"""Sets of files with a folder for each class: which files are read, and which are left out."""

import re
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

_PARTS = re.compile(
    r"(train|training|test|testing|val|valid|validation|dev|eval|evaluation)"
    r"([ _-]?(set|data|images|part|split|\d{4}))?",
    re.IGNORECASE,
)
PARTS = ("train", "val", "test")
_NAMES_OF_PARTS = dict(zip(PARTS, PARTS, strict=True)) | {"validation": "val"}
# The packed files may lie in the same folder.
_OURS = (".pack", ".lock")


def names_of(folder: Path) -> list[str]:
    """List the folders in `folder`, sorted, without hidden ones and those that Python and macOS archives leave."""
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return [name for name in names if name not in ("__pycache__", "__MACOSX")]


def divided_folders(folder: Path) -> dict[str, Path]:
    """Return train/, val/ and test/ of a folder that has these folders, val/ or not, and no others; else nothing.

    Their names may be in any case, and val/ may be called validation/.
    """
    named = [(_NAMES_OF_PARTS.get(name.lower(), name), folder / name) for name in names_of(folder)]
    found = dict(named)
    if len(found) < len(named) or not {"train", "test"} <= found.keys() <= set(PARTS):
        return {}
    # Classes may have these names, too: folders of files.
    return {part: found[part] for part in PARTS if part in found} if names_of(found["train"]) else {}


def refuse_parts(folder: Path, names: Sequence[str], remedy: str) -> None:
    """Raise if the folders are the parts of a divided set, which would be taken for classes.

    A class may also be called "train". So a part counts as one only beside another part, if it is the only folder, or
    if it contains folders, those of its classes.
    """
    parts = [name for name in names if _PARTS.fullmatch(name)]
    if parts and (len(parts) > 1 or len(names) == 1 or any(names_of(folder / part) for part in parts)):
        raise ValueError(
            f"{folder}: expected a folder for each class, got the parts {parts} of a divided set; {remedy}"
        )


def by_class(
    folder: Path,
    classes: Sequence[str],
    endings: tuple[str, ...],
    skip: str = ".",
    accepts: Callable[[Path], bool] = lambda path: True,
) -> tuple[list[Path], list[int], list[Path]]:
    """List the files with these endings below the class folders of `folder`, their labels, and the files left out.

    Files are sorted by class and name. Hidden files, files in hidden folders, and files whose names start with `skip`
    are ignored. Files that `accepts` refuses are left out.
    """
    files, labels, left_out = [], [], []
    for label, name in enumerate(classes):
        for path in _visible(folder / name):
            if path.name.startswith(skip):
                continue
            if path.suffix.lower() in endings and path.is_file() and accepts(path):
                files.append(path)
                labels.append(label)
            elif path.is_symlink() or not path.is_dir():  # links to folders are not followed
                left_out.append(path)
    return files, labels, left_out


def all_by_class(
    folder: Path,
    classes: Sequence[str],
    endings: tuple[str, ...],
    kind: str,
    accepts: Callable[[Path], bool] = lambda path: True,
) -> tuple[list[Path], list[int]]:
    """List files and labels as `by_class` does; warn of files left out, and raise if a class has no file."""
    files, labels, left_out = by_class(folder, classes, endings, accepts=accepts)
    left_out = loose_files(folder) + left_out
    filled = set(labels)
    empty = [name for label, name in enumerate(classes) if label not in filled]
    if empty or not classes:
        loose = [path.name for path in loose_files(folder) if path.suffix.lower() in endings]
        report = f"; {_report(folder, left_out)}" if left_out else ""
        if loose and not classes:
            report = f"; put the files into folders named after their classes, such as left/{loose[0]}"
        raise FileNotFoundError(
            f"{folder}: expected {kind} ({' '.join(endings)}) in a folder for each class, got "
            f"{f'none in {empty}' if classes else 'no class folder'}{report}"
        )
    warn_of(folder, left_out)
    return files, labels


def loose_files(folder: Path) -> list[Path]:
    """List the files directly in `folder`, without hidden and packed ones."""
    return sorted(
        path
        for path in folder.iterdir()
        if not path.is_dir() and not path.name.startswith(".") and path.suffix not in _OURS
    )


def warn_of(folder: Path, left_out: Sequence[Path]) -> None:
    """Warn of files that are left out, if any."""
    if left_out:
        warnings.warn(_report(folder, left_out), stacklevel=4)


def _report(folder: Path, left_out: Sequence[Path]) -> str:
    counts = Counter(path.suffix.lower() or "no ending" for path in left_out)
    kinds = ", ".join(f"{ending} {count}" for ending, count in counts.most_common())
    return f"{folder}: files that are not read: {len(left_out)} ({kinds}), the first {left_out[0].relative_to(folder)}"


def _visible(folder: Path) -> list[Path]:
    """List everything below a folder, at any depth, sorted, without hidden files and folders and their contents."""
    below = sorted(folder.rglob("*"))
    return [path for path in below if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
