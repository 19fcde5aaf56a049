"""Parts of deep networks over sequences: residual connections, and dropout with one mask per sequence."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .._checks import check_choice
from .sequential import Sequential
from .spiking import OverTime

JOINS = ("add", "and", "iand")


class Residual(OverTime):
    """A branch and a shortcut around it, joined element by element: the spike-element-wise residual connection.

    Args:
        branch: a chain, or modules over sequences.
        shortcut: likewise; None for the identity.
        join: "add" for shortcut + branch; "and" for their product; "iand" for shortcut * (1 - branch), which keeps
            spikes that the branch does not cancel.

    Shape:
        x (T, B, *features), and the state of the part before, to the joined outputs and the state.

    Raises:
        ValueError: if the join is unknown; in the forward pass, if the two outputs differ in shape, and as
            `Sequential`.

    Reference:
        Fang et al. 2021, "Deep residual learning in spiking neural networks", NeurIPS, arXiv 2102.04159.

    Example:
        >>> from htaf_snn.nn import Leaky
        >>> block = Residual(Sequential(nn.Linear(4, 4), Leaky(beta=0.9)))
        >>> spikes, state = block(torch.rand(5, 3, 4))
        >>> spikes.shape
        torch.Size([5, 3, 4])
    """

    def __init__(self, branch: nn.Module, shortcut: nn.Module | None = None, join: str = "add"):
        super().__init__()
        check_choice("join", join, JOINS)
        self.branch = branch if isinstance(branch, Sequential) else Sequential(branch)
        self.shortcut = shortcut if isinstance(shortcut, Sequential) else Sequential(*filter(None, [shortcut]))
        self.join = join

    def forward(self, x: Tensor, state: tuple | None = None) -> tuple[Tensor, tuple]:
        of_branch, of_shortcut = state or (None, None)
        y, of_branch = self.branch.stream(x, of_branch)
        around, of_shortcut = self.shortcut.stream(x, of_shortcut)
        if y.shape != around.shape:
            raise ValueError(
                f"shortcut: expected an output of {tuple(y.shape)}, the branch's, got {tuple(around.shape)}"
            )
        return self._joined(y, around), (of_branch, of_shortcut)

    def _joined(self, y: Tensor, around: Tensor) -> Tensor:
        if self.join == "add":
            return around + y
        return around * y if self.join == "and" else around * (1 - y)

    def extra_repr(self) -> str:
        return f"join={self.join!r}"


class Dropout(OverTime):
    """Dropout with one mask per sequence, the same at all its time steps; nothing in eval mode.

    Args:
        p: probability that an element is zeroed, in [0, 1).

    Shape:
        x (T, B, *features), and the mask of the part before, to x times the mask and the mask: (B, *features), whose
        elements are 0 or 1 / (1 - p), or None in eval mode.

    Raises:
        ValueError: if p is out of range.

    Example:
        >>> y, mask = Dropout(0.5)(torch.ones(4, 2, 3))
        >>> torch.equal(y[0], y[3]) and set(y.unique().tolist()) <= {0.0, 2.0}
        True
    """

    def __init__(self, p: float = 0.5):
        super().__init__()
        if isinstance(p, bool) or not isinstance(p, (int, float)) or not 0 <= p < 1:
            raise ValueError(f"p: expected a number in [0, 1), got {p!r}")
        self.p = p

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        if not self.training or not self.p:
            return x, None
        if mask is None:
            mask = nn.functional.dropout(torch.ones_like(x[0]), self.p)
        return x * mask, mask

    def extra_repr(self) -> str:
        return f"p={self.p:g}"
