"""The training loop: progress, metrics, atomic checkpoints, exact resume.

A run's folder holds `config.json`, `metrics.jsonl` (one line an epoch), `checkpoint.safetensors` (model, optimizer and
random state after the last finished epoch) and, once finished, `result.json`.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from . import integrations, models
from ._files import replacing
from .surrogate import Surrogate

__all__ = ["TrainConfig", "evaluate", "fit", "load", "load_checkpoint", "save_checkpoint", "train", "train_folds"]

CHECKPOINT = "checkpoint.safetensors"
MODELS = ("mlp", "cnn")


@dataclass(frozen=True)
class TrainConfig:
    """What `train` does; the defaults take about 20 s on two cores.

    Attributes:
        dataset: a name of `neuromorphic_datasets.names()`.
        data_root: folder of the data set; None for the default place.
        download: fetch the data set if it is not there.
        library: "snntorch" or "norse", whose neurons are used, or "fused" for this package's.
        surrogate: a specification such as "htaf(alpha=0.5, beta=8)" or "snntorch.atan(alpha=2)".
        model: "mlp" or "cnn".
        hidden: neurons (mlp) or channels (cnn) of each hidden layer.
        epochs, batch_size, time_bins: at least 1.
        lr: Adam's learning rate, in (0, 1e6].
        seed: of the weights, the order of the samples and the division of the data.
        val_fraction: part of the training samples kept for validation, in [0, 1).
        folds, fold: pool all samples and test on the fold-th of so many stratified folds.
        device: "auto", "cpu" or "cuda".
    """

    dataset: str = "saccade-digits"
    data_root: str | None = None
    download: bool = False
    library: str = "snntorch"
    surrogate: str = "htaf"
    model: str = "mlp"
    hidden: tuple[int, ...] = (256, 256)
    epochs: int = 20
    batch_size: int = 32
    time_bins: int = 10
    lr: float = 1e-3
    seed: int = 0
    val_fraction: float = 0.1
    folds: int | None = None
    fold: int | None = None
    device: str = "auto"

    def __post_init__(self):
        if isinstance(self.hidden, list):
            object.__setattr__(self, "hidden", tuple(self.hidden))
        for name in ("epochs", "batch_size", "time_bins"):
            _require(name, getattr(self, name), "an integer of at least 1", lambda v: _is_count(v))
        _require(
            "hidden",
            self.hidden,
            "one or more positive integers",
            lambda v: isinstance(v, tuple) and v and all(map(_is_count, v)),
        )
        _require(
            "folds", self.folds, "None or an integer of at least 2", lambda v: v is None or (_is_count(v) and v > 1)
        )
        _require("lr", self.lr, "a number in (0, 1e6]", lambda v: 0 < v <= 1e6)
        _require("val_fraction", self.val_fraction, "a number in [0, 1)", lambda v: 0 <= v < 1)
        _require("model", self.model, f"one of {', '.join(MODELS)}", lambda v: v in MODELS)
        _require("device", self.device, "one of auto, cpu, cuda", lambda v: v in ("auto", "cpu", "cuda"))


def _is_count(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _are_counts(values) -> bool:
    return isinstance(values, tuple) and len(values) > 0 and all(map(_is_count, values))


def _require(name: str, value, expected: str, is_valid: Callable) -> None:
    try:
        valid = is_valid(value)
    except TypeError:
        valid = False
    if not valid:
        raise ValueError(f"{name}: expected {expected}, got {value!r}")


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: expected a usable GPU for 'cuda', got none; use cpu or auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def save_checkpoint(path: str | PathLike, model: nn.Module, optimizer: torch.optim.Optimizer, epoch: int) -> None:
    """Write model, optimizer and random state to a safetensors file, atomically.

    Args:
        path: file to write.
        model: its `state_dict` is kept under "model.".
        optimizer: its tensors are kept under "optimizer.", by parameter name.
        epoch: finished epochs.
    """
    from safetensors.torch import save_file

    tensors = _checkpoint_tensors(model, optimizer)
    tensors["rng"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["rng_cuda"] = torch.cuda.get_rng_state()
    with replacing(path) as temporary:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, temporary, {"epoch": str(epoch)})


def _checkpoint_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{name}.{key}"] = value
    return tensors


def load_checkpoint(path: str | PathLike, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Restore what `save_checkpoint` wrote, in place.

    Returns:
        The number of finished epochs.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, or of a model with other tensors; nothing is changed then.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: expected a checkpoint, found no file")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}
            epoch = int(file.metadata()["epoch"])
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected a checkpoint of htaf-snn, got a damaged or other file ({error})") from error
    state = _with_prefix(tensors, "model.")
    _check_shapes(path, state, model.state_dict())
    _check_optimizer(path, tensors, model, epoch)
    model.load_state_dict(state)
    for name, parameter in model.named_parameters():
        kept = _with_prefix(tensors, f"optimizer.{name}.")
        if kept:
            optimizer.state[parameter] = {
                key: v.to(parameter.device) if v.shape == parameter.shape else v for key, v in kept.items()
            }
    torch.set_rng_state(tensors["rng"])
    if "rng_cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["rng_cuda"])
    return epoch


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _check_optimizer(path, tensors: dict[str, Tensor], model: nn.Module, epoch: int) -> None:
    """Raise unless the state of Adam is there for what has been trained, and of the parameters' shapes."""
    if "rng" not in tensors:
        raise ValueError(f"{path}: expected the random state, rng, found none")
    states = {name: _with_prefix(tensors, f"optimizer.{name}.") for name, _ in model.named_parameters()}
    if epoch and not any(states.values()):
        raise ValueError(f"{path}: expected the optimizer's state after {epoch} epochs, found none")
    for name, parameter in model.named_parameters():
        if states[name]:
            expected = {"step": torch.empty(()), "exp_avg": parameter, "exp_avg_sq": parameter}
            _check_shapes(path, states[name], expected)


def _check_shapes(path, came: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name in sorted({*came, *expected}):
        shapes = [tuple(tensors[name].shape) if name in tensors else "no such tensor" for tensors in (expected, came)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"{path}: expected {name} of shape {shapes[0]}, got {shapes[1]}")


class _SpikeRates:
    """Mean output of each of a model's `neurons`, gathered by forward hooks while the block runs."""

    def __init__(self, model: nn.Module):
        self._neurons = list(getattr(model, "neurons", ()))

    def __enter__(self):
        self._sums = [0.0] * len(self._neurons)
        self._calls = 0
        self._hooks = [neuron.register_forward_hook(self._keep(i)) for i, neuron in enumerate(self._neurons)]
        return self

    def _keep(self, i: int) -> Callable:
        def hook(module, inputs, output):
            self._calls += i == 0
            self._sums[i] = self._sums[i] + output.detach().mean()

        return hook

    def __exit__(self, *exception):
        for hook in self._hooks:
            hook.remove()

    def mean(self) -> list[float]:
        return [float(s) / max(self._calls, 1) for s in self._sums]


def evaluate(model: nn.Module, loader: Iterable) -> dict[str, float]:
    """Mean cross-entropy and accuracy of a classifier over a loader of (inputs, labels).

    Returns:
        {"loss": nats, "accuracy": from 0 to 1}; the model's mode is restored.

    Raises:
        ValueError: if the loader is empty.
    """
    training = model.training
    model.eval()
    device = next(model.parameters()).device
    loss = correct = count = 0
    with torch.no_grad():
        for x, labels in loader:
            labels = labels.to(device)
            scores = model(x.to(device))
            loss += cross_entropy(scores, labels, reduction="sum").item()
            correct += (scores.argmax(1) == labels).sum().item()
            count += len(labels)
    model.train(training)
    if not count:
        raise ValueError("loader: expected at least one sample, got none")
    return {"loss": loss / count, "accuracy": correct / count}


def _train_epoch(model: nn.Module, optimizer, loader, epoch: int, bar) -> dict:
    device = next(model.parameters()).device
    model.train()
    loss_sum = correct = count = 0
    with _SpikeRates(model) as rates:
        for step, (x, labels) in enumerate(loader):
            labels = labels.to(device)
            scores = model(x.to(device))
            loss = cross_entropy(scores, labels)
            if not loss.isfinite():
                raise FloatingPointError(f"the loss is {loss.item()} in epoch {epoch}, step {step}; try a smaller lr")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss_sum += loss.item() * len(labels)
            correct += (scores.argmax(1) == labels).sum().item()
            count += len(labels)
            spike_rate = rates.mean()
            mean_rate = sum(spike_rate) / max(len(spike_rate), 1)
            shown = f"loss {loss_sum / count:.3f}, acc {correct / count:.3f}, rate {mean_rate:.3f}"
            bar.set_postfix_str(shown, refresh=False)
            bar.update()
    return {"loss": loss_sum / count, "accuracy": correct / count, "spike_rate": spike_rate}


def fit(
    model: nn.Module,
    train_loader,
    val_loader=None,
    *,
    out: str | PathLike,
    epochs: int,
    lr: float = 1e-3,
    resume: bool = False,
    progress: bool = True,
    label: str = "",
) -> list[dict]:
    """Train a classifier with Adam, writing metrics and a checkpoint after every epoch.

    Args:
        model: maps a loader's inputs to class scores (B, classes); modules in `model.neurons` have their mean output
            recorded as the spike rate. Train it on the device that it is on.
        train_loader: of (inputs, labels (B,) int64); if its sampler has `set_epoch`, it is told the epoch.
        val_loader: likewise, or None.
        out: existing folder for `metrics.jsonl` and the checkpoint.
        epochs: in all, earlier ones of a resumed run included.
        lr: learning rate.
        resume: continue from the folder's checkpoint, exactly as if never interrupted.
        progress: show a progress bar on standard error.
        label: put before the progress bar.

    Returns:
        The metrics of all epochs, as in `metrics.jsonl`.

    Raises:
        FileNotFoundError, ValueError: as `load_checkpoint`, when resuming.
        FloatingPointError: if the loss becomes NaN or infinite.
    """
    from tqdm import tqdm

    out = Path(out)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    done, metrics = _load(out, model, optimizer) if resume else (0, [])
    _write_metrics(out, metrics)
    if not done:
        save_checkpoint(out / CHECKPOINT, model, optimizer, 0)
    for epoch in range(done, epochs):
        if hasattr(train_loader.sampler, "set_epoch"):
            train_loader.sampler.set_epoch(epoch)
        start = time.perf_counter()
        with tqdm(total=len(train_loader), desc=f"{label}epoch {epoch + 1}/{epochs}", disable=not progress) as bar:
            train_metrics = _train_epoch(model, optimizer, train_loader, epoch, bar)
            val_metrics = evaluate(model, val_loader) if val_loader is not None else {}
            if val_metrics:
                bar.set_postfix_str(f"{bar.postfix}, val acc {val_metrics['accuracy']:.3f}")
        metrics.append(
            {
                "epoch": epoch,
                **{f"train_{k}" if k != "spike_rate" else k: v for k, v in train_metrics.items()},
                **{f"val_{k}": v for k, v in val_metrics.items()},
                "seconds": round(time.perf_counter() - start, 3),
            }
        )
        _write_metrics(out, metrics)
        save_checkpoint(out / CHECKPOINT, model, optimizer, epoch + 1)
    return metrics


def _load(out: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, list[dict]]:
    """Finished epochs and their metrics; none of a run that was interrupted before its first checkpoint."""
    if not (out / CHECKPOINT).exists() and not (out / "metrics.jsonl").exists():
        return 0, []
    done = load_checkpoint(out / CHECKPOINT, model, optimizer)
    metrics = _read_metrics(out)
    if len(metrics) < done:
        raise ValueError(f"{out / 'metrics.jsonl'}: expected at least {done} lines, found {len(metrics)}")
    return done, metrics[:done]


def _read_metrics(out: Path) -> list[dict]:
    path = out / "metrics.jsonl"
    try:
        return [json.loads(line) for line in path.read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: expected the metrics of a run to resume, got {error}") from error


def _write_metrics(out: Path, metrics: list[dict]) -> None:
    _write_text(out / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in metrics))


def _write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text)


def _make_loaders(config: TrainConfig) -> tuple:
    import neuromorphic_datasets as nd

    return nd.loaders(
        config.dataset,
        root=config.data_root,
        download=config.download,
        batch_size=config.batch_size,
        time_bins=config.time_bins,
        val_fraction=config.val_fraction,
        seed=config.seed,
        folds=config.folds,
        fold=config.fold,
    )


def _make_model(config: TrainConfig, frame_shape: tuple[int, int, int], classes: int) -> nn.Module:
    torch.manual_seed(config.seed)

    def neuron() -> nn.Module:
        return integrations.neuron(config.library, config.surrogate)

    if config.model == "cnn":
        return models.SpikingCNN(frame_shape, config.hidden, classes, neuron)
    return models.SpikingMLP(torch.Size(frame_shape).numel(), config.hidden, classes, neuron)


def load(out: str | PathLike) -> nn.Module:
    """The trained network of a run, in eval mode on the CPU.

    Args:
        out: folder of a run of `train`, or of one fold of `train_folds`.

    Returns:
        A module from frames (T, B, C, H, W) to class scores (B, classes); see `evaluate`.

    Raises:
        FileNotFoundError: if there is no run or no checkpoint.
        ValueError: if a file is damaged, or the checkpoint does not fit the configuration.
    """
    config, path = read_config(out), Path(out) / "config.json"
    try:
        values = json.loads(path.read_text())
        frame_shape, classes = tuple(values["frame_shape"]), values["classes"]
    except KeyError as error:
        raise ValueError(f"{path}: expected the configuration of one network, found no {error}") from error
    # Neither the weights drawn here nor the checkpoint's random state are to be noticed outside.
    with torch.random.fork_rng():
        model = _make_model(config, frame_shape, classes)
        load_checkpoint(Path(out) / CHECKPOINT, model, torch.optim.Adam(model.parameters()))
    return model.eval()


def read_config(out: str | PathLike) -> TrainConfig:
    """The configuration of the run in a folder.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if `config.json` is damaged.
    """
    path = Path(out) / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected the configuration of a run to resume, found no file")
    try:
        values = json.loads(path.read_text())
        return TrainConfig(**{field.name: values[field.name] for field in fields(TrainConfig)})
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected a configuration written by htaf-snn, got {error!r}") from error


def train(config: TrainConfig, out: str | PathLike, *, resume: bool = False, progress: bool = True) -> dict:
    """Train and test one spiking network.

    Args:
        config: what to do.
        out: folder of the run; new or empty, unless resuming.
        resume: continue the run in the folder; config must be its own but for a larger `epochs`, and another
            `data_root` or `device`.
        progress: show progress bars on standard error.

    Returns:
        {"test_accuracy", "test_loss", "epochs", "spike_rate" (mean output per layer in the last epoch), "seconds",
        "torch", "threads", "device", "out"}, also in `result.json`. The test figures are those of the last epoch, of
        the network that spikes; after training in smooth mode there are "smooth_test_accuracy" and "hardening_gap".

    Raises:
        ValueError: if an argument is bad, the folder holds another run, or the checkpoint does not fit.
        OSError: if the data are missing or the folder cannot be written.
        FloatingPointError: if the loss becomes NaN or infinite.
    """
    device = _device(config.device)
    out = Path(out)
    # First what takes no time: an unknown surrogate or a folder that cannot be written is refused before data are read.
    integrations.neuron(config.library, config.surrogate)
    _check_folder(config, out, resume)
    with _new_folder(out):
        train_loader, val_loader, test_loader = _make_loaders(config)
        recordings = train_loader.dataset
        shape = {"frame_shape": recordings.sensor_size[::-1], "classes": len(recordings.classes)}
        model = _make_model(config, **shape).to(device)
        if resume:
            _load(out, model, torch.optim.Adam(model.parameters()))
        _write_json(out / "config.json", {**asdict(config), **shape})
    metrics = fit(
        model,
        train_loader,
        val_loader,
        out=out,
        epochs=config.epochs,
        lr=config.lr,
        resume=resume,
        progress=progress,
        label="" if config.fold is None else f"fold {config.fold + 1}/{config.folds}, ",
    )
    result = {
        **_test(model, test_loader),
        "epochs": len(metrics),
        "spike_rate": metrics[-1]["spike_rate"],
        "seconds": round(sum(line["seconds"] for line in metrics), 3),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": str(device),
        "out": str(out),
    }
    _write_json(out / "result.json", result)
    return result


def _test(model: nn.Module, loader: Iterable) -> dict[str, float]:
    """Test figures of the spiking network; for one trained with smooth steps its hardening gap too."""
    steps = [m for m in model.modules() if isinstance(m, Surrogate) and m.mode == "smooth"]
    smooth = evaluate(model, loader) if steps else None
    for step in steps:
        step.mode = "spike"
    hard = evaluate(model, loader)
    for step in steps:
        step.mode = "smooth"
    figures = {"test_accuracy": hard["accuracy"], "test_loss": hard["loss"]}
    if smooth is not None:
        gap = smooth["accuracy"] - hard["accuracy"]
        figures |= {"smooth_test_accuracy": smooth["accuracy"], "hardening_gap": gap}
    return figures


def _check_folder(config: TrainConfig, out: Path, resume: bool) -> None:
    if resume:
        _check_same_run(config, read_config(out))
    elif out.is_dir() and any(out.iterdir()):
        raise ValueError(f"out: expected a new or empty folder, got {out}, which is not; resume it or name another")


@contextmanager
def _new_folder(out: Path) -> Iterator[None]:
    """Make a folder, and take what was made away again if nothing has come into it."""
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise OSError(f"out: expected a folder that can be written, got {out}: {error.strerror}") from error
    try:
        yield
    finally:
        for folder in made:
            if not any(folder.iterdir()):
                folder.rmdir()


def _write_json(path: Path, values: dict) -> None:
    _write_text(path, json.dumps(values, indent=2) + "\n")


def _check_same_run(config: TrainConfig, before: TrainConfig) -> None:
    for field in fields(TrainConfig):
        came, expected = getattr(config, field.name), getattr(before, field.name)
        if field.name in ("data_root", "download", "device") or (field.name == "epochs" and came >= expected):
            continue
        if came != expected:
            raise ValueError(f"{field.name}: expected {expected!r}, as the run to resume has it, got {came!r}")


def _train_fold(config: TrainConfig, out: Path, fold: int, resume: bool, progress: bool) -> dict:
    folder = out / f"fold{fold}"
    again = resume and (folder / "config.json").is_file()
    return train(replace(config, fold=fold), folder, resume=again, progress=progress)


def train_folds(config: TrainConfig, out: str | PathLike, *, resume: bool = False, progress: bool = True) -> dict:
    """`train` on each of `config.folds` folds, in subfolders fold0, fold1, …; resuming goes on where it stopped.

    Returns:
        {"test_accuracy": mean, "fold_accuracy": one a fold, "out"}, also in `result.json`.
    """
    _require("folds", config.folds, "an integer of at least 2", lambda v: v is not None)
    out = Path(out)
    integrations.neuron(config.library, config.surrogate)
    _check_folder(config, out, resume)
    with _new_folder(out):
        _write_json(out / "config.json", asdict(config))
        try:
            results = [_train_fold(config, out, fold, resume, progress) for fold in range(config.folds)]
        finally:
            if not (out / "fold0").is_dir():
                (out / "config.json").unlink()
    accuracies = [result["test_accuracy"] for result in results]
    result = {"test_accuracy": sum(accuracies) / len(accuracies), "fold_accuracy": accuracies, "out": str(out)}
    _write_json(out / "result.json", result)
    return result
