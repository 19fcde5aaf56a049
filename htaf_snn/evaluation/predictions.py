"""The answer of a run's network to a recording or an image."""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import training
from ..configuration import SPIKING, Run
from ..models.spiking import SpikingNet
from ..nn import detached
from ..training.folder import device_of, read_data
from .figures import config_of, extended

# Frames of a stream that are in memory at once.
_CHUNK = 64


class Predictor:
    """The network of a run, which answers files.

    Args:
        out: folder of a run of `htaf-snn train` or `icbm`, or of one of its folds.
        device: "auto", "cpu" or "cuda".

    Raises:
        FileNotFoundError, ValueError: as `training.load`.
    """

    def __init__(self, out: str | PathLike, device: str = "auto"):
        self.config, self.device = config_of(out), device_of(device)
        self.net = training.load(out).to(self.device)
        data = read_data(out)
        self.classes, self.shape = data["classes"], tuple(data["shape"])

    def __call__(self, path: str | PathLike, time_window: float | None = None) -> dict[str, Any]:
        """Return the answer to a file, see `predict`."""
        spiking = isinstance(self.config, Run) and self.config.model in SPIKING
        if not spiking:
            if time_window is not None:
                raise ValueError("time_window: expected None for a network of images")
            return {"file": str(path), **self._answer(self._of_image(path))}
        with extended(self.config), torch.no_grad():
            parts = self._frames(path) if time_window is None else self._stream(path, time_window)
            return {"file": str(path), **self._over_time(parts)}

    def _answer(self, scores: Tensor) -> dict[str, Any]:
        """Return the class of the scores (n_classes,), and all by name."""
        best = int(scores.argmax())
        return {"class": self.classes[best], "scores": dict(zip(self.classes, scores.tolist(), strict=True))}

    @torch.no_grad()
    def _of_image(self, path: str | PathLike) -> Tensor:
        import neuromorphic_datasets as nd

        image = nd.images.read(path, resize=self.config.resize)
        if tuple(image.shape) != self.shape:
            hint = "; train with resize= to take any size" if image.shape[0] == self.shape[0] else ""
            raise ValueError(f"{path}: expected an image of (C, H, W) = {self.shape}, got {tuple(image.shape)}{hint}")
        return self.net(image[None].to(self.device))[0]

    def _over_time(self, parts: Iterator[Tensor]) -> dict[str, Any]:
        assert isinstance(self.net, SpikingNet)
        total, state, steps, over_time = torch.zeros(len(self.classes), device=self.device), None, 0, list[str]()
        for part in parts:
            scores, state = self.net.stream(part.to(self.device), detached(state))
            means = total + scores[:, 0].cumsum(0)
            over_time += [self.classes[best] for best in means.argmax(1).tolist()]
            total, steps = means[-1], steps + len(part)
        if not steps:
            raise ValueError("path: expected a recording with events, got none")
        return {**self._answer(total / steps), "over_time": over_time}

    def _frames(self, path: str | PathLike) -> Iterator[Tensor]:
        """Yield the frames of a recording as in the training: equal parts of its duration."""
        import neuromorphic_datasets as nd

        assert isinstance(self.config, Run)
        size = self._sensor_size()
        frames = nd.to_frames(nd.read_events(path, sensor_size=size), size, n_time_bins=self.config.n_time_bins)
        yield torch.from_numpy(frames.astype(np.float32))[:, None]

    def _stream(self, path: str | PathLike, time_window: float) -> Iterator[Tensor]:
        """Yield the frames of a recording of any length, in parts that fit into memory."""
        import neuromorphic_datasets as nd

        waiting: list[np.ndarray] = []
        for frame in nd.stream(path, time_window=time_window, sensor_size=self._sensor_size()):
            waiting.append(frame)
            if len(waiting) == _CHUNK:
                yield torch.from_numpy(np.stack(waiting).astype(np.float32))[:, None]
                waiting = []
        if waiting:
            yield torch.from_numpy(np.stack(waiting).astype(np.float32))[:, None]

    def _sensor_size(self) -> tuple[int, int, int]:
        polarities, height, width = self.shape
        return width, height, polarities


def predict(
    out: str | PathLike, *paths: str | PathLike, time_window: float | None = None, device: str = "auto"
) -> Iterator[dict[str, Any]]:
    """Yield the answer of a run's network to each file.

    Args:
        out: folder of a run of `htaf-snn train` or `icbm`, or of one of its folds.
        *paths: recordings of a format of `neuromorphic_datasets.read_events`, from a sensor of the size of the
            training's; or, for a network of images, image files.
        time_window: µs per frame, for recordings of any length, in constant memory; None divides each recording into as
            many frames as in the training.
        device: "auto", "cpu" or "cuda".

    Yields:
        {"file", "class": the name of the largest score, "scores": by class, of a spiking network the mean over time;
        "over_time": the class after each time step, for spiking networks}.

    Raises:
        FileNotFoundError, ValueError: as `training.load`, `read_events` and `images.read`, or a file does not fit the
            network.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> run = training.Run(model="dhn", hidden=(16,), epochs=1, batch_size=256)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = training.train(run, f"{folder}/run", progress=False)
        ...     Image.new("L", (8, 8), 99).save(f"{folder}/grey.png")
        ...     [answer] = predict(f"{folder}/run", f"{folder}/grey.png")
        >>> answer["class"] in answer["scores"] and len(answer["scores"])
        10
    """
    predictor = Predictor(out, device)
    for path in paths:
        yield predictor(path, time_window)
