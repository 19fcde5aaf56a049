"""A packed network and its file: safetensors, with the steps as JSON in the metadata. A file holds no code."""

from __future__ import annotations

import hashlib
import json
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from .._checks import check_floating, is_plain
from .._files import replacing
from ..functional import unpack_bits
from .modules import MODULES, options, rebuilt
from .programs import Program, programs
from .quickest import Quickest
from .steps import STEPS, Flatten, Quantize, ToRows
from .values import Step, Value, as_float, geometry, misfit, sums_exactly

FORMAT, VERSION = "htaf-snn packed network", "6"
_OWN = {cls.__name__: cls for cls in STEPS}
_KNOWN = {cls.__name__ for cls in MODULES}
_OF_TRAINING = "; for a training's network see training.load, then pack"
_DEVICES = ("cpu", "cuda")


class PackedNetwork(nn.Module):
    """A network that computes on packed bits, made by `pack` or `load`. It cannot be trained.

    Args:
        steps: each step with the numbers of the values it takes: 0 is the input, n the result of the n-th step.
        output: the number of the value that is the network's output.
        names: of the layer that each step was, for messages; "step 0" and so on if they are not known.

    Attributes:
        steps: the modules.
        names: as the argument.
        inputs: the numbers of the values that each takes.
        output: as the argument.
        is_over_time: whether it takes frames, as spiking networks do.

    Shape:
        Images or features (B, …), floating-point, to class scores (B, n_classes), float32. Of a spiking network frames
        (T, B, …); a chain of spiking layers gives a sequence (T, B, …).

    On a CPU, runs of steps may be computed in one call, or the whole network in float32. The first call for a shape of
    samples, and for each power of two of their number, takes several times as long: it compiles and measures which way
    is fastest. All give the same results, also under `torch.autocast`, which has no effect. Tensors that change are
    read anew, but not those changed through `.data`, nor other attributes of steps.

    Raises:
        TypeError: in the forward pass, if the input is not a floating-point tensor.
        ValueError: if there is not one name per step; in the forward pass, if the input has another shape or range; in
            `train()`; and in `half()` and `to()` for a dtype other than float32.

    Example:
        >>> from htaf_snn import deploy, models
        >>> packed = deploy.pack(models.BinaryMLP(64, [32, 32], 10).eval())
        >>> type(packed).__name__, packed(torch.rand(5, 1, 8, 8)).shape
        ('PackedNetwork', torch.Size([5, 10]))
        >>> try:
        ...     packed(torch.full((1, 64), 2.0))
        ... except ValueError as error:
        ...     print(str(error)[:52])
        x: expected values within [0, 1], got 2.0 to 2.0; sc
    """

    def __init__(self, steps: Sequence[tuple[nn.Module, list[int]]], output: int, names: Sequence[str] | None = None):
        super().__init__()
        self.names = [f"step {i}" for i in range(len(steps))] if names is None else [*names]
        if len(self.names) != len(steps) or not all(isinstance(name, str) for name in self.names):
            raise ValueError(f"names: expected {len(steps)} strings, one per step, got {self.names!r}")
        self.inputs, self.output = [list(inputs) for _, inputs in steps], output
        self._last_use = {number: i for i, inputs in enumerate(self.inputs) for number in inputs} | {output: len(steps)}
        self._done: list[list[int]] = [[] for _ in steps]  # what is not needed any more after each step
        for number in range(len(steps) + 1):
            last = self._last_use.get(number, max(number - 1, 0))
            if last < len(steps):
                self._done[last].append(number)
        self.steps = nn.ModuleList(step for step, _ in steps)
        self._prepare()
        self._quickest = Quickest()
        self.eval()

    def _prepare(self) -> None:
        """Make what depends on which modules the steps are."""
        self._steps = [*self.steps]
        self._is_over_time = self.is_over_time
        self._programs = programs([*self.steps], self.inputs, self.output)
        self._hooks = [own for step in self._steps for own in (step._forward_hooks, step._forward_pre_hooks)]

    def train(self, mode: bool = True) -> PackedNetwork:
        """Stay in eval mode; raise ValueError for training mode."""
        if mode:
            raise ValueError("mode: expected False, a packed network cannot be trained")
        return super().train(False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PackedNetwork:
        got = fn(torch.zeros(1)).dtype
        if got != torch.float32:
            raise ValueError(f"dtype: expected float32, in which the packed network equals its model, got {got}")
        return super()._apply(fn, recurse)

    @property
    def is_over_time(self) -> bool:
        """Whether it takes frames (T, B, …), as spiking networks do."""
        return any(isinstance(step, ToRows) for step in self.steps)

    def image_range(self) -> tuple[float, float]:
        """Return the range of images that the network takes, 0 and 1 if it does not say.

        Raises:
            ValueError: if it converts images of several ranges.
        """
        return range_of_images([*zip(self.steps, self.inputs, strict=True)])

    def used_after(self, i: int) -> set[int]:
        """Return the numbers of the values that steps after the i-th take, and of the output."""
        return {number for number, last in self._last_use.items() if last > i}

    @torch.no_grad()
    def values(self, x: Tensor) -> list[Value]:
        """Return the input and the result of every step."""
        values: list[Value] = [x.float()]
        for step, inputs in zip(self.steps, self.inputs, strict=True):
            values.append(_result(step, [values[number] for number in inputs]))
        return values

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Return the class scores of images, features or frames, without a gradient.

        Args:
            x: floating-point (B, …) on the network's device, within the range of `nn.QuantizeInput` if it has one; of a
                spiking network frames (T, B, …).

        Returns:
            (B, n_classes), float32; of a chain of spiking layers a sequence (T, B, …).

        Raises:
            TypeError: if x is not a floating-point tensor.
            ValueError: if it has another shape or range.
        """
        if not all(map(operator.is_, self.steps._modules.values(), self._steps)):  # one was replaced
            self._prepare()
        check_floating("x", x, is_image=not self._is_over_time)
        kind = x.device.type
        if kind in _DEVICES and torch.is_autocast_enabled(kind):
            with torch.autocast(kind, enabled=False):
                return self.forward(x)
        if not is_plain(x) or any(self._hooks):
            return self._by_bits(x.float())
        samples, chosen = 2 if self._is_over_time else 1, self._quickest.chosen
        lengths = *(length.bit_length() for length in x.shape[:samples]), *x.shape[samples:]
        key = lengths, torch.get_num_threads()
        # What has been measured to be slower in float32 needs none of the checks for it.
        if chosen.get(key) == 0 or not _may_be_in_floats(x):
            return self._by_bits(x.float())
        count = len(chosen)
        y = self._quickest(key, [partial(self._by_bits, x.float()), partial(self._by_floats, x.float())])
        if len(chosen) > count and not any(chosen.values()):
            for step in self.steps:
                if isinstance(step, Step):
                    step.release()
        return y

    def _by_bits(self, x: Tensor) -> Tensor:
        values: dict[int, Value] = {0: x}
        self._compute(values, 0, len(self.steps) - 1)
        return as_float(values[self.output])

    def _by_floats(self, x: Tensor) -> Tensor:
        """Return the same without bits, which is quicker for small networks and large batches."""
        values: dict[int, Tensor] = {0: x}
        for i, (step, inputs) in enumerate(zip(self.steps, self.inputs, strict=True)):
            given = [values[number] for number in inputs]
            values[i + 1] = _result(step, given, in_floats=True)
            for done in self._done[i]:
                values.pop(done, None)
        return as_float(values[self.output])

    def _compute(self, values: dict[int, Value], i: int, last: int, without: Program | None = None) -> dict[int, Value]:
        """Add the results of steps to the values, by other programs than one; return what is still needed."""
        while i <= last:
            program = self._programs.get(i)
            results = None
            if program is not None and program is not without:
                results = program(values, partial(self._compute_without, program, values))
            if program is None or results is None:
                values[i + 1] = _result(self.steps[i], [values[number] for number in self.inputs[i]])
                end = i + 1
            else:
                values |= results
                end = program.last + 1
            for done in self._done[i:end]:
                for number in done:
                    values.pop(number, None)
            i = end
        return values

    def _compute_without(self, program: Program, values: Mapping[int, Value]) -> dict[int, Value]:
        return self._compute({**values}, program.first, program.last, program)


def is_image(steps: Sequence[tuple[nn.Module, Sequence[int]]], number: int) -> bool:
    """Return whether a value is the image that a network with these steps takes, perhaps flattened."""
    while number:
        step, inputs = steps[number - 1]
        if not isinstance(step, Flatten):
            return False
        number = inputs[0]
    return True


def range_of_images(steps: Sequence[tuple[nn.Module, Sequence[int]]]) -> tuple[float, float]:
    """Return the range of images that steps take, as `PackedNetwork.image_range`."""
    ranges = {
        (step.quantize.low, step.quantize.high) for step, inputs in steps
        if isinstance(step, Quantize) and is_image(steps, inputs[0])
    }  # fmt: skip
    if len(ranges) > 1:
        raise ValueError(f"network: expected one range of images, got {sorted(ranges)}")
    return ranges.pop() if ranges else (0.0, 1.0)


def _may_be_in_floats(x: Tensor) -> bool:
    """Return whether nothing changes, or sees, how a plain input is computed; the steps' own hooks apart."""
    if x.device.type != "cpu" or not x.numel():
        return False
    return sums_exactly() and not _has_any_global_hook()


def _result(step: nn.Module, given: Sequence[Value], in_floats: bool = False) -> Any:
    try:
        if isinstance(step, Step):
            return step.in_floats(*given) if in_floats else step(*given)
        return step(as_float(given[0]))
    except (IndexError, RuntimeError, ValueError) as error:
        says_it = isinstance(step, Step) and isinstance(error, ValueError)
        if says_it or (expected := _misfit(step, tuple(given[0].shape))) is None:
            raise
        raise ValueError(expected) from error


def _misfit(step: nn.Module, shape: tuple[int, ...]) -> str | None:
    """Return which shape a step in floating point takes, where it cannot take the given one."""
    if isinstance(step, nn.Linear):
        is_taken = len(shape) > 0 and shape[-1] == step.in_features
        return None if is_taken else misfit(f"(B, {step.in_features})", shape)
    if isinstance(step, nn.BatchNorm1d):
        is_taken = len(shape) in (2, 3) and shape[1] == step.num_features
        return None if is_taken else misfit(f"(B, {step.num_features})", shape)
    if isinstance(step, (nn.Conv2d, nn.BatchNorm2d)):
        channels = step.in_channels if isinstance(step, nn.Conv2d) else step.num_features
        lengths = (3, 4) if isinstance(step, nn.Conv2d) else (4,)
        is_taken = len(shape) in lengths and shape[-3] == channels
        return None if is_taken else misfit(f"(B, {channels}, H, W)", shape, channels)
    if isinstance(step, (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)) and len(shape) not in (3, 4):
        return misfit("(B, C, H, W)", shape)
    return misfit("(B, …)", shape) if len(shape) < 2 else None


def save(network: PackedNetwork, path: str | PathLike) -> None:
    """Write a packed network to a safetensors file, atomically.

    Args:
        network: from `pack` or `load`.
        path: file to write; an existing one is replaced.

    Raises:
        TypeError: if the network is not packed.
        OSError: if the file cannot be written.

    Example:
        >>> import pathlib, tempfile
        >>> from htaf_snn import deploy, models
        >>> packed = deploy.pack(models.BinaryMLP(16, [8], 2).eval())
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(packed, pathlib.Path(folder, "net.safetensors"))
        ...     again = load(pathlib.Path(folder, "net.safetensors"))
        >>> x = torch.rand(3, 16)
        >>> torch.equal(again(x), packed(x))
        True
    """
    from safetensors.torch import save_file

    if not isinstance(network, PackedNetwork):
        raise TypeError(f"network: expected a packed network, got {type(network).__name__}; see deploy.pack")
    tensors: dict[str, Tensor] = {}
    steps: list[dict[str, object]] = []
    for i, (step, inputs, name) in enumerate(zip(network.steps, network.inputs, network.names, strict=True)):
        if isinstance(step, Step):
            state, arguments = step.tensors(), step.options()
        else:
            state, arguments = step.state_dict(), options(step)
        tensors |= {f"{i}.{key}": value.cpu().contiguous() for key, value in state.items()}
        steps.append({"step": type(step).__name__, "name": name, "inputs": inputs, "options": arguments})
    structure = json.dumps({"steps": steps, "output": network.output})
    about = {"format": FORMAT, "version": VERSION, "network": structure, "sha256": checksum(tensors, structure)}
    with replacing(path) as temporary:
        save_file(tensors, temporary, about)


def checksum(tensors: Mapping[str, Tensor], structure: str) -> str:
    """Return the SHA-256 of a file's structure and of its tensors by name, in hexadecimal digits."""
    content = hashlib.sha256(structure.encode())
    for name, value in sorted(tensors.items()):
        content.update(repr((name, value.dtype, tuple(value.shape))).encode())
        content.update(value.contiguous().numpy().tobytes())
    return content.hexdigest()


def load(path: str | PathLike, device: str | torch.device = "cpu") -> PackedNetwork:
    """Read a packed network from a file that `save` wrote.

    Args:
        path: file to read.
        device: where the network computes, "cpu" or "cuda".

    Raises:
        FileNotFoundError: if the file does not exist.
        IsADirectoryError: if it is a folder.
        ValueError: if it is damaged, also if only a bit of it changed, not a packed network, or of another version; or
            if the device is unknown, or a GPU and none is usable.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "net.safetensors")
        ...     _ = path.write_bytes(b"something else")
        ...     try:
        ...         load(path)
        ...     except ValueError as error:
        ...         print(str(error).removeprefix(folder)[:74])
        /net.safetensors: expected a packed network, got a damaged or other file (
    """
    from safetensors import SafetensorError, safe_open

    try:
        kind = torch.device(device).type
    except (RuntimeError, TypeError):
        raise ValueError(f"device: expected 'cpu' or 'cuda', got {device!r}") from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device: expected a usable GPU for {str(device)!r}, got none")
    if Path(path).is_dir():
        raise IsADirectoryError(f"{path}: expected the file of a packed network, got a folder{_OF_TRAINING}")
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: expected a packed network, got no file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}
    except SafetensorError as error:
        raise ValueError(f"{path}: expected a packed network, got a damaged or other file ({error})") from error
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path}: expected a packed network of htaf-snn, got another safetensors file{_OF_TRAINING}")
    if metadata.get("version") != VERSION:
        got = f"got {metadata.get('version')}; pack the network again, or use the version of htaf-snn that wrote it"
        raise ValueError(f"{path}: expected version {VERSION} of the format, {got}")
    try:
        if metadata["sha256"] != checksum(tensors, metadata["network"]):
            raise ValueError("its checksum differs")
        structure = json.loads(metadata["network"])
        steps = [(_step(i, entry, tensors), entry["inputs"]) for i, entry in enumerate(structure["steps"])]
        _check_order(structure)
        names = [entry.get("name", f"step {i}") for i, entry in enumerate(structure["steps"])]
        network = PackedNetwork(steps, structure["output"], names)
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: expected a packed network, got a damaged file ({error})") from error
    return network.to(device)


def _check_order(structure: dict) -> None:
    """Raise ValueError unless every step takes values that earlier steps computed."""
    steps = structure["steps"]
    numbers = [(number, i) for i, entry in enumerate(steps) for number in entry["inputs"]]
    for number, end in [*numbers, (structure["output"], len(steps))]:
        if not (isinstance(number, int) and 0 <= number <= end):
            raise ValueError(f"step {end}: expected the number of an earlier value, got {number!r}")


def _step(i: int, entry: dict, tensors: dict[str, Tensor]) -> nn.Module:
    kind, prefix = entry["step"], f"{i}."
    state = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    if kind in _KNOWN:
        return rebuilt(kind, entry["options"], state)
    arguments = dict(entry["options"])
    if arguments.get("where") is not None:
        arguments["where"] = geometry(**arguments["where"])
    if kind == "BinaryProduct":
        shape = arguments.pop("shape")
        state["weight"] = (unpack_bits(state.pop("signs"), math.prod(shape[1:])).float() * 2 - 1).view(shape)
    if kind == "HeavisideProduct":
        state["weight"] = state["weight"].to(torch.int32)
    return _OWN[kind](**arguments, **state)
