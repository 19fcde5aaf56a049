"""The parameter of a surrogate that sets its width, found by trying."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .base import Foreign, Surrogate
from .formula import FORMULAS
from .specifications import resolve

_TRIED = (0.5, 3.0)
"""Stretches at which a change of the parameter has to equal them."""


def gradient(surrogate: Surrogate, x: Tensor, stretch: float = 1.0) -> Tensor:
    """Return the slopes of surrogate(stretch * x) with respect to x.

    Raises:
        ValueError: if the surrogate has no gradient.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        y = surrogate.at_hardness(1.0, x * stretch)
        if not y.requires_grad:
            raise ValueError(f"surrogate: expected one with a gradient, got {surrogate!r}")
        return torch.autograd.grad(y, x, torch.ones_like(y), materialize_grads=True)[0]


def _parts(surrogate: Surrogate) -> tuple[str, dict[str, Any]] | None:
    """Return the name and the arguments of a surrogate's specification; None if it has none."""
    if isinstance(surrogate, Foreign):
        _, (library, member, parameters) = vars(surrogate).get("_origin", (None, ("", "", {})))
        return (f"{library}.{member}", dict(parameters)) if library else None
    formula = surrogate.formula
    if formula is None or FORMULAS.get(formula.name) is not formula:
        return None
    values: dict[str, Any] = {}
    for key, value in surrogate._shown().items():
        if isinstance(value, Tensor) and value.numel() > 1:
            return None
        values[key] = value.item() if isinstance(value, Tensor) else value
    if values.pop("hardness") != 1:
        values["hardness"] = surrogate.hardness
    return formula.name, values


def _written(name: str, values: Mapping[str, Any]) -> str:
    inner = ", ".join(f"{key}={value!r}" for key, value in values.items())
    return f"{name}({inner})" if inner else name


@dataclass(frozen=True)
class Steepness:
    """A surrogate's specification, of which one parameter sets the width.

    Attributes:
        surrogate: of which the widths are.
        name, values: its specification.
        key: the parameter.
        power: 1 if a larger value is narrower, -1 if it is wider.
    """

    surrogate: Surrogate
    name: str
    values: dict[str, Any]
    key: str
    power: int

    @classmethod
    def of(cls, surrogate: Surrogate) -> Steepness | None:
        """Return the steepness of a surrogate; None if it has no parameter whose change is a stretch, up to a gain."""
        name, values = _parts(surrogate) or ("", {})
        for key, value in values.items():
            if key in ("hardness", "learn") or isinstance(value, bool) or not isinstance(value, (int, float)):
                continue
            for power in (1, -1):
                steepness = cls(surrogate, name, values, key, power)
                if all(steepness._fit(stretch)[1] for stretch in _TRIED):
                    return steepness
        return None

    def specification(self, stretch: float, digits: int = 3) -> str:
        """Return the specification of the surrogate at another width, the parameter rounded."""
        value = float(f"{self.values[self.key] * stretch**self.power:.{digits}g}")
        return _written(self.name, {**self.values, self.key: value})

    def scale(self, stretch: float) -> float:
        """Return the ratio of its gradient at another width to that of surrogate(stretch * x)."""
        return 1.0 if stretch == 1 else self._fit(stretch)[0]

    def _fit(self, stretch: float) -> tuple[float, bool]:
        """Return the ratio of the two gradients, and whether it is one and the same everywhere."""
        far = torch.logspace(-9, 6, 500, dtype=torch.float64) / stretch
        x = torch.cat([-far, far])
        try:
            changed = gradient(resolve(self.specification(stretch, digits=17)), x)
            stretched = gradient(self.surrogate, x, stretch)
        except (TypeError, ValueError):
            return 1.0, False
        # An overflow of the surrogate's own far from the threshold is no concern here.
        usable = changed.isfinite() & stretched.isfinite()
        changed, stretched = changed[usable], stretched[usable]
        scale = ((changed * stretched).sum() / stretched.square().sum()).item()
        is_same = torch.allclose(changed, scale * stretched, rtol=1e-3, atol=1e-6 * stretched.abs().max().item())
        return scale, is_same and scale > 0
