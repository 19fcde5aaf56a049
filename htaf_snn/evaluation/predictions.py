"""The answer of a run's network to a recording or an image."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from numbers import Real
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import training
from .._checks import check_choice
from ..configuration import SPIKING, Run
from ..models.spiking import SpikingNet
from ..nn import detached
from ..training.folder import device_of, read_data
from .figures import config_of, extended

# Frames of a stream that are in memory at once.
_CHUNK = 64
# How many times as long, or as short, as in the training a frame may be without a warning.
_USUAL = 3
# The frames of a recording beyond which a window that is much shorter than in the training is a mistake.
_MOST_FRAMES = 100_000


class Predictor:
    """The network of a run, which answers files.

    Args:
        out: folder of a run of `htaf-snn train` or `icbm`, or of one of its folds.
        time_window: as in `predict`.
        device: "auto", "cpu" or "cuda".

    Raises:
        FileNotFoundError, ValueError: as `training.load`, or the time window is no number of µs.
    """

    def __init__(self, out: str | PathLike, time_window: float | None = None, device: str = "auto"):
        self.config, self.device = config_of(out), device_of(device)
        self.net = training.load(out).to(self.device)
        data = read_data(out)
        self.classes, self.shape = data["classes"], tuple(data["shape"])
        self.reading, self.is_short, self.time_window = data.get("reading", {}), False, time_window
        if data.get("transform"):
            warnings.warn(
                f"the training data were transformed by {data['transform']}; predict does not do this, so transform "
                "the files first",
                stacklevel=3,
            )
        if time_window is not None:
            self._check_window(time_window, data)

    def _check_window(self, time_window: float, data: dict[str, Any]) -> None:
        """Raise ValueError if the window cannot be meant in µs, and warn if it is unlike the training's frames."""
        if not (isinstance(self.config, Run) and self.config.model in SPIKING):
            raise ValueError(f"time_window: expected None for a network of images, got {time_window!r}; leave it out")
        if isinstance(time_window, bool) or not isinstance(time_window, Real) or not 1 <= time_window < float("inf"):
            meant = time_window * 1e6 if isinstance(time_window, float) and 0 < time_window < 1 else None
            hint = f"; if these are seconds, it is {meant:g} µs" if meant else ""
            raise ValueError(f"time_window: expected at least 1 µs, got {time_window!r}{hint}")
        usual = data["duration_us"][1] / self.config.n_time_bins if "duration_us" in data else 0
        if usual and not 1 / _USUAL <= time_window / usual <= _USUAL:
            self.is_short = time_window < usual
            warnings.warn(
                f"time_window: {time_window:g} µs per frame, but {usual:.0f} µs in the training (the median), so the "
                "network sees other frames than it was trained on; is it in µs?",
                stacklevel=4,
            )

    def __call__(self, path: str | PathLike) -> dict[str, Any]:
        """Return the answer to a file, see `predict`."""
        if not (isinstance(self.config, Run) and self.config.model in SPIKING):
            return {"file": str(path), **self._answer(self._of_image(path))}
        with extended(self.config), torch.no_grad():
            parts = self._frames(path) if self.time_window is None else self._stream(path, self.time_window)
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
            expected = f"expected an image of (C, H, W) = {self.shape}, got {tuple(image.shape)}"
            raise ValueError(f"{path}: {expected}{self._remedies(tuple(image.shape))}")
        return self.net(image[None].to(self.device))[0]

    def _remedies(self, shape: tuple[int, ...]) -> str:
        """Return what to do about an image of another shape than the training's."""
        text = ""
        if shape[0] != self.shape[0] and self.shape[0] in (1, 3):
            text = f"; convert the image to {'grey' if self.shape[0] == 1 else 'colour'}"
        if shape[1:] != self.shape[1:]:
            text += "; to take images of any size, train with resize=, on the command line --resize"
        return text

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
        from neuromorphic_datasets import readers

        assert isinstance(self.config, Run)
        size = self._sensor_size()
        chosen = readers.options(sensor_size=size, **readers.with_effect(Path(path), self.reading))
        recording = readers.read_recording(Path(path), chosen)
        if faults := recording.too_faulty():
            raise nd.RecordingError(f"{path}: {faults}")
        if recording.dropped:
            warnings.warn(f"{path}: faults dropped: {recording.dropped}; the first: {recording.fault}", stacklevel=4)
        frames = nd.to_frames(recording.events.structured(), size, n_time_bins=self.config.n_time_bins)
        yield torch.from_numpy(frames.astype(np.float32))[:, None]

    def _stream(self, path: str | PathLike, time_window: float) -> Iterator[Tensor]:
        """Yield the frames of a recording of any length, in parts that fit into memory."""
        import neuromorphic_datasets as nd
        from neuromorphic_datasets.readers import with_effect

        waiting: list[np.ndarray] = []
        reading = with_effect(Path(path), self.reading)
        frames = nd.stream(path, time_window=time_window, sensor_size=self._sensor_size(), **reading)
        for number, frame in enumerate(frames, 1):
            if number > _MOST_FRAMES and self.is_short:
                raise ValueError(
                    f"{path}: expected at most {_MOST_FRAMES} frames of a time_window so much shorter than in the "
                    f"training, got more of {time_window:g} µs each; is it in ms or s?"
                )
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
    out: str | PathLike,
    *paths: str | PathLike,
    time_window: float | None = None,
    device: str = "auto",
    on_error: str = "raise",
) -> Iterator[dict[str, Any]]:
    """Yield the answer of a run's network to each file.

    Args:
        out: folder of a run of `htaf-snn train` or `icbm`, or of one of its folds.
        *paths: recordings of a format of `neuromorphic_datasets.read_events`, from a sensor of the size of the
            training's, read with the arguments of the training's `EventFolder`; or, for a network of images, image
            files.
        time_window: µs per frame, >= 1, for recordings of any length, in constant memory unless the training dropped
            faulty events; None divides each recording into as many frames as in the training. A warning says if frames
            become three times as long or as short as they were there; then a recording may have at most 100 000.
        device: "auto", "cpu" or "cuda".
        on_error: how to treat a file that cannot be answered: "raise" the error, which ends the answers, or "answer" it
            and go on with the other files.

    Yields:
        Answers, each a dict of "file", of "class", the name of the largest score, and of "scores", by class; for
        spiking networks these are means over time, and "over_time" has the class after each time step, which is a
        frame. An answered error is a dict of "file" and of "error", the message.

    Raises:
        FileNotFoundError, NotADirectoryError, ValueError: as `training.load`, or the time window cannot be in µs; about
            a file, as `read_events` and `images.read`, or it does not fit the network, or more than a tenth of its
            events are faulty.
        TypeError: if a path is none, such as a list of them.

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
    check_choice("on_error", on_error, ("raise", "answer"))
    for path in paths:
        if not isinstance(path, (str, PathLike)):
            remedy = "; write predict(out, *files)" if isinstance(path, Iterable) else ""
            raise TypeError(f"paths: expected a path of a file, got {path!r}{remedy}")
    return _answers(out, paths, time_window, device, on_error)


def _answers(
    out: str | PathLike, paths: Sequence[str | PathLike], time_window: float | None, device: str, on_error: str
) -> Iterator[dict[str, Any]]:
    predictor = Predictor(out, time_window, device)
    for path in paths:
        try:
            answer = predictor(path)
        except (ValueError, OSError, ImportError) as error:
            if on_error == "raise":
                raise
            where = "" if str(path) in str(error) else f"{path}: "
            answer = {"file": str(path), "error": f"{where}{error}"}
        yield answer
