"""Concepts of many images as packed bits, and the search for similar ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .. import functional
from .._files import replacing
from .._packages import needs
from ..models import ICBM
from ..nn._batches import unpack
from ..nn._modes import in_eval

if TYPE_CHECKING:
    from torch_concepts import AnnotatedTensor


@dataclass(frozen=True)
class Codes:
    """The concepts of many images, one bit per concept.

    Attributes:
        words: int64 of shape (N, ceil(size / 64)), packed by `functional.pack_bits`.
        size: number of concepts.
        labels: int64 of shape (N,).

    Example:
        >>> stored = Codes.of(torch.tensor([[1, 0, 1], [1, 1, 1], [0, 0, 0]]), torch.tensor([4, 5, 6]))
        >>> stored.shape, stored[0].tolist()
        ((3, 3), [True, False, True])
        >>> stored.nearest(torch.tensor([1, 0, 1]), 2)
        (tensor([0, 1]), tensor([0, 1]))
    """

    words: Tensor
    size: int
    labels: Tensor

    @classmethod
    def of(cls, concepts: Tensor, labels: Tensor) -> Codes:
        """Pack concepts (N, K), set where greater than 0, with labels (N,); raise ValueError if they do not match."""
        if labels.ndim != 1 or labels.is_floating_point():
            raise ValueError(f"labels: expected integers (N,), got {labels.dtype} {tuple(labels.shape)}")
        if concepts.ndim != 2 or len(concepts) != len(labels):
            raise ValueError(f"concepts: expected (N, K) for {len(labels)} labels, got {tuple(concepts.shape)}")
        return cls(functional.pack_bits(concepts.cpu()), concepts.shape[1], labels.cpu().long())

    @property
    def shape(self) -> tuple[int, int]:
        """(N, K)."""
        return len(self.words), self.size

    def __len__(self) -> int:
        return len(self.words)

    def __getitem__(self, index: int | slice | Tensor) -> Tensor:
        """Return the bits of an image, or of several by a slice or indices, as booleans."""
        return functional.unpack_bits(self.words[index], self.size)

    def numpy(self) -> np.ndarray:
        """Return all bits, bool of shape (N, K)."""
        return self[:].numpy()

    def nearest(self, code: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
        """Return the images whose codes differ in the fewest bits.

        Args:
            code: bits (K,) or (Q, K).
            k: number of images, 1 to N.

        Returns:
            (indices, distances), each int64 of shape (k,) or (Q, k), nearest first, ties by index.

        Raises:
            ValueError: if the code has another size, or k is out of range.
        """
        if not isinstance(code, Tensor) or code.ndim not in (1, 2) or code.shape[-1] != self.size:
            raise ValueError(f"code: expected bits (K,) or (Q, K) with K = {self.size}, got {code!r}")
        if not 1 <= k <= len(self):
            raise ValueError(f"k: expected 1 to {len(self)}, got {k}")
        stored = functional.pack_weight(self[:].float() * 2 - 1)
        agreeing = functional.binary_linear(functional.pack_bits(code.cpu()), stored)
        distances = (self.size - agreeing.long()) // 2
        order = torch.argsort(distances, dim=-1, stable=True)[..., :k]
        return order, distances.gather(-1, order)

    def to_pyc(self) -> AnnotatedTensor:
        """Return all bits, float32, as an `AnnotatedTensor` of PyC (pytorch-concepts), one binary label per concept.

        Raises:
            ImportError: if PyC is not installed.
        """
        with needs("pyc"):
            from torch_concepts import AnnotatedTensor, Annotations
        names = [f"concept_{number}" for number in range(self.size)]
        return AnnotatedTensor(self[:].float(), Annotations(labels=names, cardinalities=[1] * self.size))

    def save(self, path: str | PathLike) -> None:
        """Write an .npz of `bits` (bool), `labels` and `words`, or a .parquet with one column per concept.

        Raises:
            ValueError: if the path has another suffix.
            ImportError: if pyarrow is not installed, for .parquet.
        """
        path = Path(path)
        if path.suffix == ".npz":
            with replacing(path) as temporary:
                np.savez_compressed(temporary, bits=self.numpy(), labels=self.labels.numpy(), words=self.words.numpy())
        elif path.suffix == ".parquet":
            self._save_parquet(path)
        else:
            raise ValueError(f"path: expected .npz or .parquet, got {path}")

    @classmethod
    def load(cls, path: str | PathLike) -> Codes:
        """Read an .npz written by `save`.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is damaged or of another kind.

        Example:
            >>> import tempfile
            >>> stored = Codes.of(torch.tensor([[1, 0, 1], [0, 0, 1]]), torch.tensor([4, 5]))
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     stored.save(f"{folder}/codes.npz")
            ...     Codes.load(f"{folder}/codes.npz").numpy().tolist()
            [[True, False, True], [False, False, True]]
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: expected saved codes, got no file")
        try:
            with np.load(path, allow_pickle=False) as archive:
                return cls.of(torch.from_numpy(archive["bits"]), torch.from_numpy(archive["labels"]))
        except Exception as error:  # NumPy and zipfile raise many kinds
            raise ValueError(f"{path}: expected codes of htaf-snn, got a damaged or other file ({error})") from error

    def _save_parquet(self, path: Path) -> None:
        with needs("parquet"):
            import pyarrow as pa
            from pyarrow import parquet
        columns = {f"concept_{i}": column for i, column in enumerate(self.numpy().T)}
        with replacing(path) as temporary:
            parquet.write_table(pa.table({"label": self.labels.numpy(), **columns}), temporary)


@torch.no_grad()
def codes(model: ICBM, loader: Iterable) -> Codes:
    """Return the hard concepts of all images of a loader, in its order.

    Args:
        model: evaluated in `eval()`; its mode is restored.
        loader: of (images, labels).

    Returns:
        `Codes` of N images and `n_concepts` bits, on the CPU.

    Raises:
        ValueError: if the loader is empty, or labels are not of shape (B,).
        TypeError: if the images are not floating-point tensors.

    Example:
        >>> model = ICBM(torch.nn.Flatten(), n_concepts=5, n_classes=3, in_features=16)
        >>> batches = [(torch.rand(2, 1, 4, 4), torch.tensor([0, 1])), (torch.rand(1, 1, 4, 4), torch.tensor([2]))]
        >>> stored = codes(model, batches)
        >>> stored.shape, stored.labels
        ((3, 5), tensor([0, 1, 2]))
    """
    device = model.head.weight.device
    words, labels = [], []
    with in_eval(model):
        for batch in map(unpack, loader):
            words.append(functional.pack_bits(model.concepts(batch.x.to(device)).cpu()))
            labels.append(batch.labels.cpu())
    if not words:
        raise ValueError("loader: expected at least one image, got none")
    return Codes(torch.cat(words), model.head.in_features, torch.cat(labels))
