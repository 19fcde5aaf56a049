"""Checkpoints: model, optimizer and random state in one safetensors file."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor, nn

from .._files import replacing

CHECKPOINT = "checkpoint.safetensors"
"""The file of a run's folder from which it is resumed."""
# Of the network that a run is judged by, where it is not that of the last epoch.
NETWORK = "network.safetensors"


def save_checkpoint(
    path: str | PathLike,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    epoch: int,
    extra: Mapping[str, Tensor] | None = None,
) -> None:
    """Write model, optimizer and random state to a safetensors file, atomically.

    Args:
        path: file to write.
        model: its `state_dict` is stored under "model.".
        optimizer: its tensors are stored under "optimizer.", by parameter name; None for a model alone.
        epoch: number of finished epochs.
        extra: further tensors, stored under "extra.".

    Raises:
        OSError: if the file cannot be written; an existing one is left unchanged.

    Example:
        >>> import tempfile
        >>> net = nn.Linear(2, 1)
        >>> optimizer = torch.optim.Adam(net.parameters())
        >>> net(torch.ones(1, 2)).sum().backward()
        >>> optimizer.step()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_checkpoint(f"{folder}/{CHECKPOINT}", net, optimizer, epoch=3)
        ...     load_checkpoint(f"{folder}/{CHECKPOINT}", net, optimizer)
        3
    """
    from safetensors.torch import save_file

    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for key, value in ({} if optimizer is None else optimizer.state.get(parameter, {})).items():
            tensors[f"optimizer.{name}.{key}"] = value
    tensors |= {f"extra.{name}": value for name, value in (extra or {}).items()}
    tensors["rng"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["rng_cuda"] = torch.cuda.get_rng_state()
    # Copies, as a module that is reachable under two names has its tensors twice.
    copies = {k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}
    with replacing(path) as temporary:
        save_file(copies, temporary, {"epoch": str(epoch)})


def load_checkpoint(
    path: str | PathLike,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    extra: Mapping[str, Tensor] | None = None,
) -> int:
    """Restore model, optimizer and random state from a file of `save_checkpoint`, in place, on the model's device.

    Args:
        path: file to read.
        model: a model of the same structure.
        optimizer: of the kind that was saved, over its parameters; None to restore the model alone.
        extra: tensors into which those that were saved with these names are copied.

    Returns:
        The number of finished epochs.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, or its tensors or surrogates do not fit the model; nothing is changed then.

    Example:
        >>> import tempfile
        >>> small, large = nn.Linear(2, 1), nn.Linear(3, 1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_checkpoint(f"{folder}/{CHECKPOINT}", small, torch.optim.Adam(small.parameters()), epoch=0)
        ...     try:
        ...         load_checkpoint(f"{folder}/{CHECKPOINT}", large, torch.optim.Adam(large.parameters()))
        ...     except ValueError as error:
        ...         print(str(error).removeprefix(folder))
        /checkpoint.safetensors: expected weight of shape (1, 3), got weight of shape (1, 2)
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: expected a checkpoint, got no file")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}
            epoch = int(file.metadata()["epoch"])
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected a checkpoint of htaf-snn, got a damaged or other file ({error})") from error
    state = _with_prefix(tensors, "model.")
    _check_shapes(path, state, model.state_dict())
    if optimizer is not None:
        _check_optimizer(path, tensors, model, optimizer, epoch)
        _check_shapes(path, _with_prefix(tensors, "extra."), dict(extra or {}))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    try:
        model.load_state_dict(state)
    except ValueError as error:  # of another surrogate
        model.load_state_dict(before)
        raise ValueError(f"{path}: {error}") from error
    if optimizer is None:
        return epoch
    for name, parameter in model.named_parameters():
        stored = _with_prefix(tensors, f"optimizer.{name}.")
        if stored:
            optimizer.state[parameter] = {key: _placed(key, v, parameter, optimizer) for key, v in stored.items()}
    for name, value in (extra or {}).items():
        value.copy_(tensors[f"extra.{name}"])
    torch.set_rng_state(tensors["rng"])
    if "rng_cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["rng_cuda"])
    return epoch


def _placed(key: str, value: Tensor, parameter: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
    """Return a value of an optimizer's state where the optimizer keeps it."""
    if key == "step":  # which Adam counts on the CPU, a fused one on the device
        return value.to(parameter.device) if optimizer.defaults.get("fused") else value
    # In the parameter's order in memory: a fused optimizer walks through both without looking at the strides.
    return torch.empty_like(parameter, requires_grad=False).copy_(value)


def epoch_of(path: str | PathLike) -> int:
    """Return the number of finished epochs of a file of `save_checkpoint`."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return int(file.metadata()["epoch"])


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _check_optimizer(
    path: str | PathLike, tensors: dict[str, Tensor], model: nn.Module, optimizer: torch.optim.Optimizer, epoch: int
) -> None:
    """Raise ValueError unless the random state and, after an epoch, the optimizer's are there, in their shapes."""
    if "rng" not in tensors:
        raise ValueError(f"{path}: expected the random state, rng, got none")
    states = {name: _with_prefix(tensors, f"optimizer.{name}.") for name, _ in model.named_parameters()}
    if epoch and not any(states.values()):
        raise ValueError(f"{path}: expected the optimizer's state after {epoch} epochs, got none")
    for name, parameter in model.named_parameters():
        if states[name]:
            expected = {"step": torch.empty(()), "exp_avg": parameter, "exp_avg_sq": parameter}
            if isinstance(optimizer, torch.optim.SGD):
                expected = {"momentum_buffer": parameter}
            _check_shapes(path, states[name], expected)


def _check_shapes(path: str | PathLike, tensors: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name in sorted({*tensors, *expected}):
        want, got = (
            f"{name} of shape {tuple(t[name].shape)}" if name in t else f"no {name}" for t in (expected, tensors)
        )
        if want != got:
            raise ValueError(f"{path}: expected {want}, got {got}")
