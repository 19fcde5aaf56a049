"""Studies: every combination of data set, surrogate, slope, depth, learning rate and seed, trained once, by workers.

The state is in Optuna's storage: one trial a combination, made before the first starts. A worker takes a trial that
waits by setting its state, which only one can; while it trains, it sends heartbeats. When they stop, others put the
trial back.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields, replace
from datetime import datetime
from importlib.metadata import version
from os import PathLike
from pathlib import Path

import torch

from .. import _files
from ..training import Processes
from ..training.folder import device_of
from . import stacking, trial
from .settings import Settings

__all__ = ["Study"]

SETTINGS = "study.json"
_NAME = "htaf-snn compare"
_HEARTBEAT_S = 5
_GRACE_S = 20
_POLL_S = 0.3
PACKAGES = ("htaf-snn", "torch", "snntorch", "norse", "spikingjelly", "sinabs", "numpy", "optuna")


class Study:
    """A study in a folder.

    Args:
        out: the folder; it is made if it is not there, and continued if it is.
        storage: URL of a database that several machines share, such as "postgresql+psycopg://host/name"; None is an
            SQLite file in the folder.
        **settings: as `Settings`; none at all continues a study with the settings that it has.

    Raises:
        ValueError: a setting is wrong, or the folder has something else or a study of other settings; the message shows
            the difference. More seeds extend a study, and the device may be another.
        ImportError: a library is not installed.
        OSError: the folder or the database cannot be used.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> study = Study(folder.name, surrogates=["htaf", "atan"], seeds=3)
        >>> study.counts()
        {'waiting': 6, 'running': 0, 'finished': 0, 'failed': 0}
        >>> folder.cleanup()
    """

    def __init__(self, out: str | PathLike, *, storage: str | None = None, **settings):
        self.out = Path(out)
        self.settings = self._settled(settings)
        self.storage = storage or f"sqlite:///{self.out.resolve() / 'study.db'}"
        self._open()

    def _settled(self, given: dict) -> Settings:
        """The settings given, if they are those of the folder or add seeds, or the folder's if none are given."""
        from filelock import FileLock

        path = self.out / SETTINGS
        before = _read_settings(path) if path.is_file() else None
        if before is not None and not given:
            return before
        unknown = set(given) - {field.name for field in fields(Settings)}
        if unknown:
            raise TypeError(f"Study: unknown settings {', '.join(sorted(unknown))}")
        settings = Settings(**given)
        if before is not None and settings != replace(
            before, device=settings.device, seeds=max(settings.seeds, before.seeds)
        ):
            now, then = asdict(settings), asdict(before)
            changed = [f"{name}: {then[name]!r} there, {now[name]!r} here" for name in now if now[name] != then[name]]
            raise ValueError(f"{path}: a study of other settings; " + "; ".join(changed))
        if before is None and self.out.is_dir():
            others = sorted(one.name for one in self.out.iterdir() if not one.name.startswith((".", "study.")))
            if others:
                raise ValueError(f"out: expected a study's folder or a new one, got {self.out}, which has {others[0]}")
        if settings != before:
            settings.check()
            self.out.mkdir(parents=True, exist_ok=True)
            with FileLock(self.out / ".study.lock"):
                overtaken = path.is_file() and _read_settings(path) != before  # by another start at the same moment
                if not overtaken:
                    with _files.replacing(path) as temporary:
                        temporary.write_text(json.dumps(asdict(settings), indent=2) + "\n")
            if overtaken:
                return self._settled(given)
        return settings

    def _open(self) -> None:
        """Connect to the database, and make the trials that are not there."""
        import optuna
        from filelock import FileLock

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with _database_errors(self.storage), warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            timeout = {"connect_args": {"timeout": 60}} if self.storage.startswith("sqlite") else None
            with FileLock(self.out / ".study.lock"):
                self._storage = optuna.storages.RDBStorage(
                    self.storage,
                    engine_kwargs=timeout,
                    heartbeat_interval=_HEARTBEAT_S,
                    grace_period=_GRACE_S,
                    heartbeat_stale_trial_callback=_put_back,
                )
                self._study = optuna.create_study(storage=self._storage, study_name=_NAME, load_if_exists=True)
                known = {_key(t) for t in self._study.get_trials(deepcopy=False)}
                for config in self.settings.configs():
                    if _digest(asdict(config)) not in known:
                        _add(self._study, asdict(config))

    def _trials(self) -> dict[str, object]:
        """One trial for each combination: the finished one, else the failed one, else the latest."""
        order = {"COMPLETE": 0, "FAIL": 2}
        found: dict[str, object] = {}
        for one in self._study.get_trials(deepcopy=False):
            if _is_put_back(one):
                continue
            key = _key(one)
            rank = order.get(one.state.name, 1)
            if key not in found or rank < order.get(found[key].state.name, 1):
                found[key] = one
        return found

    def counts(self) -> dict[str, int]:
        """How many trials wait, run, are finished, and have failed."""
        names = {"WAITING": "waiting", "RUNNING": "running", "COMPLETE": "finished", "FAIL": "failed"}
        counts = dict.fromkeys(names.values(), 0)
        for one in self._trials().values():
            counts[names[one.state.name]] += 1
        return counts

    def run(self, workers: int = 1, progress: bool = True, stack_seeds: bool = False) -> dict[str, int]:
        """Run the trials that are left, in processes of their own with one thread each, and wait.

        Finished trials stay as they are; one that failed is kept with its error. Several calls, on one machine or more,
        share the work. Ctrl-C puts running trials back. Started by `torchrun`, its processes train one trial after
        another, each together, through Lightning Fabric; `workers` is then not used.

        Args:
            workers: processes.
            progress: show a progress bar with the time left on standard error.
            stack_seeds: train the seeds of a configuration that are left as one network. Results equal those of
                separate runs within rounding. Faster for small networks on a GPU; on a CPU it seldom is.

        Returns:
            `counts` afterwards.

        Raises:
            RuntimeError: if a worker ends by an error of its own.
            ValueError: stack_seeds under `torchrun`.
        """
        from tqdm import tqdm

        processes = Processes.launched(device_of(self.settings.device).type)
        if processes is not None:
            if stack_seeds:
                raise ValueError("stack_seeds: expected one process for each network, got several started by torchrun")
            self._run_together(processes, progress)
            return self.counts()
        command = [sys.executable, "-W", "ignore", "-m", "htaf_snn.compare.study", str(self.out), self.storage]
        command += ["stack-seeds"] * stack_seeds
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        counts = self.counts()
        done, left = counts["finished"] + counts["failed"], min(workers, counts["waiting"] + counts["running"])
        with contextlib.ExitStack() as stack:
            bar = stack.enter_context(
                tqdm(total=sum(counts.values()), initial=done, unit="trial", disable=not progress)
            )
            logs = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(left)]
            processes = [subprocess.Popen(command, env=environment, stderr=log) for log in logs]
            try:
                while True:
                    running = any(process.poll() is None for process in processes)
                    counts = self.counts()
                    bar.set_postfix(failed=counts["failed"], refresh=False)
                    bar.update(counts["finished"] + counts["failed"] - bar.n)
                    if not running:
                        break
                    time.sleep(_POLL_S)
            except BaseException:
                _stop(processes)
                raise
            for process, log in zip(processes, logs, strict=True):
                log.seek(0)
                if process.returncode:
                    raise RuntimeError(f"a worker ended: {(log.read().strip() or 'killed').splitlines()[-1]}")
        return counts

    def _run_together(self, processes: Processes, progress: bool) -> None:
        """Run the trials that are left, each by all of these processes; the first keeps the study."""
        from tqdm import tqdm

        signal.signal(signal.SIGTERM, _leave)
        bar = tqdm(total=len(self.settings.configs()), unit="trial", disable=not (progress and processes.is_main))
        while True:
            taken = self._next(bar) if processes.is_main else None
            config = processes.broadcast(taken and taken.user_attrs["config"])
            if config is None:
                bar.close()
                processes.shutdown()
                return
            if processes.is_main:
                self._try([taken], processes)
            else:
                with contextlib.suppress(Exception):  # the first tells it
                    trial.run(trial.Config(**config), processes)

    def _next(self, bar):
        counts = self.counts()
        bar.update(counts["finished"] + counts["failed"] - bar.n)
        self._put_stale_back()
        return next(iter(self._take()), None)

    def work(self, stack_seeds: bool = False) -> None:
        """Run waiting trials in this process until none waits or runs; `stack_seeds` as of `run`."""
        while True:
            self._put_stale_back()
            taken = self._take(stack_seeds)
            if taken:
                self._try(taken)
            elif self.counts()["running"] == 0:
                return
            else:
                time.sleep(_POLL_S)

    def _put_stale_back(self) -> None:
        import optuna

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            optuna.storages.fail_stale_trials(self._study)

    def _take(self, stack_seeds: bool = False) -> list:
        """A waiting trial, now running for this process alone; with `stack_seeds` all that differ in the seed alone."""
        from filelock import FileLock
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        # A server locks the trial's row; SQLite cannot, and two workers could both find it waiting.
        with FileLock(self.out / ".study.lock"):
            first: dict[str, object] = {}
            taken: list = []
            for one in self._study.get_trials(deepcopy=False):
                if _is_put_back(one) or one is not first.setdefault(_key(one), one) or one.state != TrialState.WAITING:
                    continue  # also a copy, made by two machines that began at the same moment
                if taken and not (stack_seeds and _but_seed(one) == _but_seed(taken[0])):
                    continue
                with contextlib.suppress(UpdateFinishedTrialError):
                    # First, as only a trial with a heartbeat is found when this process is killed.
                    self._storage.record_heartbeat(one._trial_id)
                    if self._storage.set_trial_state_values(one._trial_id, TrialState.RUNNING):
                        taken.append(one)
        return taken

    def _try(self, taken: list, processes: Processes | None = None) -> None:
        """Run trials that this process has taken; several are stacked."""
        from optuna.trial import TrialState

        left = [*taken]
        with _heartbeats(self._storage, [one._trial_id for one in taken]):
            try:
                if len(taken) > 1:
                    with contextlib.suppress(stacking.StackingError):
                        results = stacking.run([self._config(one) for one in taken])
                        while left:
                            self._keep(left[0], results[-len(left)])
                            del left[0]
                while left:
                    self._run_one(left[0], processes)
                    del left[0]
            except (KeyboardInterrupt, SystemExit) as stopped:
                if isinstance(stopped, SystemExit):  # of a worker, by `_stop`
                    signal.signal(signal.SIGTERM, signal.SIG_IGN)
                for one in left:
                    self._storage.set_trial_state_values(one._trial_id, TrialState.FAIL)
                    _add(self._study, one.user_attrs["config"])
                raise

    def _config(self, taken) -> trial.Config:
        return replace(_config(taken), device=self.settings.device)

    def _run_one(self, taken, processes: Processes | None) -> None:
        from optuna.trial import TrialState

        try:
            result = trial.run(self._config(taken), processes)
        except Exception as error:
            told = f"{type(error).__name__}: {error}"
            self._storage.set_trial_user_attr(taken._trial_id, "error", told)
            self._storage.set_trial_user_attr(taken._trial_id, "traceback", traceback.format_exc())
            self._storage.set_trial_state_values(taken._trial_id, TrialState.FAIL)
        else:
            self._keep(taken, result)

    def _keep(self, taken, result: dict) -> None:
        from optuna.trial import TrialState

        finished = datetime.now().isoformat(timespec="seconds")
        for name, value in {"result": result, "finished": finished, "versions": versions()}.items():
            self._storage.set_trial_user_attr(taken._trial_id, name, value)
        self._storage.set_trial_state_values(taken._trial_id, TrialState.COMPLETE, [result["test_accuracy"]])

    def table(self) -> list[dict]:
        """One row for each data set, surrogate, slope, depth and learning rate; see `htaf_snn.compare.report.table`."""
        from .report import table

        return table(self)

    def report(self) -> Path:
        """Write report.html, table.csv, table.md, table.tex and results.json into the folder; return the page's path.

        Raises:
            ValueError: if no trial is finished.
        """
        from .report import write

        return write(self)

    def results(self) -> list[dict]:
        """The finished trials: {"config", "result", "versions"}, in the order of `Settings.configs`."""
        found = self._trials()
        keys = [_digest(asdict(config)) for config in self.settings.configs()]
        finished = [found[key].user_attrs for key in keys if key in found and found[key].state.name == "COMPLETE"]
        return [{name: attributes[name] for name in ("config", "result", "versions")} for attributes in finished]

    def failures(self) -> list[dict]:
        """The failed trials: {"config", "error"}."""
        found = [one.user_attrs for one in self._trials().values() if one.state.name == "FAIL"]
        return [{"config": attributes["config"], "error": attributes["error"]} for attributes in found]


def _read_settings(path: Path) -> Settings:
    try:
        values = json.loads(path.read_text())
        return Settings(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: expected the settings of a study, got {error}") from error


def _digest(config: dict) -> str:
    """What tells trials apart: all but the device, which changes results by rounding alone."""
    told = {name: value for name, value in config.items() if name != "device"}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def _key(one) -> str:
    return _digest(one.user_attrs["config"])


def _config(one) -> trial.Config:
    return trial.Config(**one.user_attrs["config"])


def _but_seed(one) -> trial.Config:
    return replace(_config(one), seed=0)


def _is_put_back(one) -> bool:
    return one.state.name == "FAIL" and "error" not in one.user_attrs


def _add(study, config: dict) -> None:
    import optuna

    waiting = optuna.trial.create_trial(state=optuna.trial.TrialState.WAITING, user_attrs={"config": config})
    study.add_trial(waiting)


def _put_back(study, stale) -> None:
    """Called by Optuna once for each trial whose heartbeats stopped."""
    _add(study, stale.user_attrs["config"])


def versions() -> dict[str, str]:
    """Those of the packages that results depend on, where they are installed."""
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(ImportError):
            found[package] = version(package)
    return found


@contextlib.contextmanager
def _heartbeats(storage, trial_ids: Sequence[int]) -> Iterator[None]:
    """Send heartbeats at once and every few seconds while the block runs."""
    done = threading.Event()

    def beat() -> None:
        for number in trial_ids:
            storage.record_heartbeat(number)

    def beats() -> None:
        while not done.wait(_HEARTBEAT_S):
            beat()

    beat()
    thread = threading.Thread(target=beats, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextlib.contextmanager
def _database_errors(url: str) -> Iterator[None]:
    """Tell a database that is damaged, locked or out of reach in one line."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except ImportError as error:
        remedy = '; pip install "htaf-snn[postgres]"' if url.startswith("postgresql") else ""
        raise OSError(f"storage: the database {url} cannot be used: {error}{remedy}") from error
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise OSError(f"storage: the database {url} cannot be used: {reason}") from error


def _stop(processes: Sequence[subprocess.Popen]) -> None:
    """Tell workers to put their trials back and end; again and again, as a callback of C code may swallow the first."""
    while any(process.poll() is None for process in processes):
        for process in processes:
            process.send_signal(signal.SIGTERM)
        time.sleep(1)


def _leave(*_) -> None:
    sys.exit(143)


def _work(out: str, storage: str, *options: str) -> None:
    """A worker's process."""
    torch.set_num_threads(1)
    # Ctrl-C goes to all processes of a terminal; the one that started this tells it by SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    Study(out, storage=storage).work(stack_seeds="stack-seeds" in options)


if __name__ == "__main__":
    _work(*sys.argv[1:])
