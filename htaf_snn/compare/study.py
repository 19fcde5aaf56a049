"""Studies: every combination of data set, surrogate, slope, depth, learning rate and seed, trained once, by workers.

The state is in Optuna's storage: one trial per combination, added before the first one starts. A worker takes a waiting
trial by setting its state, in which only one worker can succeed, and sends heartbeats while it trains. When they stop,
other workers requeue the trial.
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
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from .. import _files
from .._memory import keep_freed
from ..training import Processes
from ..training.folder import device_of
from . import report, selection, stacking, trial
from .settings import Settings
from .trial import Trial

if TYPE_CHECKING:
    import optuna
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial
    from tqdm import tqdm


SETTINGS = "study.json"
_NAME = "htaf-snn compare"
# What may differ between the machines that share a study; the device changes results only by rounding.
_ELSEWHERE = ("device", "data_root", "download")
_HEARTBEAT_S = 5
_GRACE_S = 20
_POLL_S = 0.3
PACKAGES = ("htaf-snn", "torch", "snntorch", "norse", "spikingjelly", "sinabs", "numpy", "optuna")


class Study:
    """A study in a folder.

    Args:
        out: the folder; created if it does not exist. A study in it is continued.
        storage: URL of a database that several machines share, such as "postgresql+psycopg://host/name"; None for an
            SQLite file in the folder.
        **settings: as in `Settings.of`; without any, the study in the folder is continued with its own settings.

    Raises:
        ValueError: if a setting is wrong, or the folder contains something else or a study with other settings; the
            message shows the difference. More seeds extend a study, and the device, the place of the data and the
            selection may differ.
        ImportError: if a library is not installed.
        OSError: if the folder or the database cannot be used.

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
        self.settings = self._settle(settings)
        self.storage = storage or f"sqlite:///{self.out.resolve() / 'study.db'}"
        self._open()

    def _settle(self, values: dict) -> Settings:
        """Return the settings from `values` if they match the folder's or add seeds, or the folder's without values."""
        from filelock import FileLock

        path = self.out / SETTINGS
        before = _read_settings(path) if path.is_file() else None
        if before is not None and not values:
            return before
        settings = Settings.of(**values)
        if before is not None:
            now, then = settings.as_dict(), before.as_dict()
            free = {*_ELSEWHERE, "select", "select_seeds", *(["seeds"] if settings.seeds > before.seeds else [])}
            names = [name for name in now if now[name] != then[name] and name not in free]
            if names:
                changed = [f"{name}: expected {then[name]!r}, got {now[name]!r}" for name in names]
                raise ValueError(f"{path}: the study in this folder has other settings; " + "; ".join(changed))
        if before is None and self.out.is_dir():
            names = sorted(path.name for path in self.out.iterdir() if not path.name.startswith((".", "study.")))
            if names:
                raise ValueError(f"out: expected a new folder or a study's, got {self.out}, which contains {names[0]}")
        if settings != before:
            settings.check()
            self.out.mkdir(parents=True, exist_ok=True)
            with FileLock(self.out / ".study.lock"):
                overtaken = path.is_file() and _read_settings(path) != before  # by another start at the same time
                if not overtaken:
                    with _files.replacing(path) as temporary:
                        temporary.write_text(json.dumps(settings.as_dict(), indent=2) + "\n")
            if overtaken:
                return self._settle(values)
        return settings

    def _open(self) -> None:
        """Connect to the database, and add the trials that are not in it."""
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
                    heartbeat_stale_trial_callback=_requeue,
                )
                self._study = optuna.create_study(storage=self._storage, study_name=_NAME, load_if_exists=True)
            self._add_missing()

    def _add_missing(self) -> bool:
        """Add the trials that are to run and are not in the database yet; return whether there were any."""
        from filelock import FileLock

        with FileLock(self.out / ".study.lock"):
            entries = self._study.get_trials(deepcopy=False)
            if any("hidden" not in entry.user_attrs["config"] for entry in entries):
                repeated = report.command(self.settings)
                raise ValueError(
                    f"{self.out}: expected a study of this version, got an earlier one's; repeat {repeated}"
                )
            known = {_key(entry) for entry in entries}
            wanted = {_digest(trial.config()): trial for trial in self._wanted_trials()}
            for key, trial in wanted.items():
                if key not in known:
                    _add(self._study, trial.config())
        # A study that selects otherwise now may have more trials in the database.
        self._wanted = wanted
        return not wanted.keys() <= known

    def _wanted_trials(self) -> list[Trial]:
        """Return all trials that are to run: those that select, and once these have ended, the others."""
        trials, entries = self.settings.trials(), self._entries()
        keys = [_digest(trial.config()) for trial in trials]
        if self.settings.select == "none" or not all(
            key in entries and entries[key].state.name in ("COMPLETE", "FAIL") for key in keys
        ):
            return trials
        return trials + self.settings.further(selection.chosen(self.settings, self._finished(trials)))

    def _entries(self) -> dict[str, FrozenTrial]:
        """Return one entry per combination: the first that was not requeued, as `_take` does."""
        entries: dict[str, FrozenTrial] = {}
        for entry in self._study.get_trials(deepcopy=False):
            if not _is_requeued(entry):
                entries.setdefault(_key(entry), entry)
        return entries

    def counts(self) -> dict[str, int]:
        """Return the numbers of waiting, running, finished and failed trials."""
        names = {"WAITING": "waiting", "RUNNING": "running", "COMPLETE": "finished", "FAIL": "failed"}
        counts = dict.fromkeys(names.values(), 0)
        for key, entry in self._entries().items():
            if key in self._wanted:
                counts[names[entry.state.name]] += 1
        return counts

    def run(self, workers: int = 1, progress: bool = True, stack_seeds: bool = False) -> dict[str, int]:
        """Run the remaining trials in worker processes with one thread each, and wait for them.

        Finished trials are not repeated; a failed one is kept with its error. Several calls, on one or more machines,
        share the work. With `select_seeds`, the trials of the other seeds are added when those that select have ended.
        Ctrl-C requeues running trials. Under `torchrun` all processes train each trial together through
        Lightning Fabric, one trial after another; `workers` is then ignored.

        Args:
            workers: number of worker processes.
            progress: show a progress bar with the remaining time on standard error.
            stack_seeds: train the remaining seeds of a configuration as one network. Results equal those of separate
                runs within rounding. Faster for small networks on a GPU, rarely on a CPU.

        Returns:
            The final `counts`.

        Raises:
            RuntimeError: if a worker itself fails.
            ValueError: if stack_seeds is set under `torchrun`.
        """
        processes = Processes.launched(device_of(self.settings.shared.device).type)
        if processes is not None:
            if stack_seeds:
                raise ValueError("stack_seeds: not supported under torchrun; leave it out")
            self._run_together(processes, progress)
            return self.counts()
        while True:
            self._run_workers(workers, progress, stack_seeds)
            added, counts = self._add_missing(), self.counts()
            # Another machine may have added the trials of the other seeds.
            if not (added or counts["waiting"] or counts["running"]):
                return counts

    def _run_workers(self, workers: int, progress: bool, stack_seeds: bool) -> None:
        """Run the trials that are in the database in worker processes, and wait for them."""
        from tqdm import tqdm

        command = [sys.executable, "-W", "ignore", "-m", "htaf_snn.compare.study", str(self.out), self.storage]
        command += ["stack-seeds"] * stack_seeds
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        counts = self.counts()
        done, workers = counts["finished"] + counts["failed"], min(workers, counts["waiting"] + counts["running"])
        with contextlib.ExitStack() as stack:
            bar = stack.enter_context(
                tqdm(total=sum(counts.values()), initial=done, unit="trial", disable=not progress)
            )
            logs = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(workers)]
            children = [subprocess.Popen(command, env=environment, stderr=log) for log in logs]
            try:
                while True:
                    running = any(child.poll() is None for child in children)
                    counts = self.counts()
                    bar.set_postfix(failed=counts["failed"], refresh=False)
                    bar.update(counts["finished"] + counts["failed"] - bar.n)
                    if not running:
                        break
                    time.sleep(_POLL_S)
            except BaseException:
                _stop(children)
                raise
            for child, log in zip(children, logs, strict=True):
                log.seek(0)
                if child.returncode:
                    raise RuntimeError(f"a worker failed: {(log.read().strip() or 'killed').splitlines()[-1]}")

    def _run_together(self, processes: Processes, progress: bool) -> None:
        """Run the remaining trials, each in all of these processes; rank 0 alone reads and writes the study."""
        from tqdm import tqdm

        signal.signal(signal.SIGTERM, _exit)
        bar = tqdm(total=len(self.settings.trials()), unit="trial", disable=not (progress and processes.is_main))
        while True:
            taken = self._next(bar) if processes.is_main else None
            shared = processes.broadcast(None if taken is None else self._wanted[_key(taken)])
            if shared is None:
                bar.close()
                processes.shutdown()
                return
            if taken is not None:
                self._try([taken], processes=processes)
            else:
                with contextlib.suppress(Exception):  # rank 0 records it
                    trial.run(shared, processes)

    def _next(self, bar: tqdm) -> FrozenTrial | None:
        """Take the next trial; None when nothing is left to run here or elsewhere."""
        while True:
            counts = self.counts()
            bar.total = sum(counts.values())
            bar.update(counts["finished"] + counts["failed"] - bar.n)
            self._requeue_stale()
            taken = next(iter(self._take()), None)
            if taken is not None or not (self._add_missing() or self.counts()["running"]):
                return taken
            time.sleep(_POLL_S)

    def work(self, stack_seeds: bool = False) -> None:
        """Run waiting trials in this process until none is waiting or running; `stack_seeds` as in `run`."""
        while True:
            self._requeue_stale()
            # A signal after the trial is taken and before `_try` can requeue it would leave it running.
            with _files.uninterrupted(signal.SIGINT, signal.SIGTERM) as allow_signals:
                taken = self._take(stack_seeds)
                if taken:
                    self._try(taken, allow_signals)
                    continue
            if self.counts()["running"] == 0:
                return
            time.sleep(_POLL_S)

    def _requeue_stale(self) -> None:
        import optuna

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            optuna.storages.fail_stale_trials(self._study)

    def _take(self, stack_seeds: bool = False) -> list[FrozenTrial]:
        """Take a waiting trial for this process alone; with `stack_seeds` also those that differ only in the seed."""
        from filelock import FileLock
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        # A server locks the trial's row; SQLite cannot, so two workers could both see it waiting.
        with FileLock(self.out / ".study.lock"):
            first: dict[str, FrozenTrial] = {}
            taken: list[FrozenTrial] = []
            for entry in self._study.get_trials(deepcopy=False):
                # Two machines that started at the same time may both have added the trial; only the first entry counts.
                if _is_requeued(entry) or entry is not first.setdefault(_key(entry), entry):
                    continue
                if _key(entry) not in self._wanted:
                    continue
                if entry.state != TrialState.WAITING:
                    continue
                if taken and not (stack_seeds and _without_seed(entry) == _without_seed(taken[0])):
                    continue
                with contextlib.suppress(UpdateFinishedTrialError):
                    # Before the state is set: without a heartbeat nobody would notice if this process were killed.
                    self._storage.record_heartbeat(entry._trial_id)
                    if self._storage.set_trial_state_values(entry._trial_id, TrialState.RUNNING):
                        taken.append(entry)
        return taken

    def _try(
        self,
        taken: list[FrozenTrial],
        allow_signals: Callable[[], None] = lambda: None,
        processes: Processes | None = None,
    ) -> None:
        """Run the trials that this process has taken, stacked if there is more than one."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        remaining = [*taken]
        with _heartbeats(self._storage, [entry._trial_id for entry in taken]):
            try:
                allow_signals()
                if len(taken) > 1:
                    with contextlib.suppress(stacking.StackingError):
                        results = stacking.run([self._wanted[_key(entry)] for entry in taken])
                        while remaining:
                            self._keep(remaining[0], results[-len(remaining)])
                            del remaining[0]
                while remaining:
                    self._run_one(remaining[0], processes)
                    del remaining[0]
            except (KeyboardInterrupt, SystemExit) as stopped:
                if isinstance(stopped, SystemExit):  # of a worker, by `_stop`
                    signal.signal(signal.SIGTERM, signal.SIG_IGN)
                for entry in remaining:
                    with contextlib.suppress(UpdateFinishedTrialError):  # it had just finished
                        self._storage.set_trial_state_values(entry._trial_id, TrialState.FAIL)
                        _requeue(self._study, entry)
                raise

    def _run_one(self, entry: FrozenTrial, processes: Processes | None) -> None:
        from optuna.trial import TrialState

        try:
            result = trial.run(self._wanted[_key(entry)], processes)
        except Exception as error:
            self._storage.set_trial_user_attr(entry._trial_id, "error", f"{type(error).__name__}: {error}")
            self._storage.set_trial_user_attr(entry._trial_id, "traceback", traceback.format_exc())
            self._storage.set_trial_state_values(entry._trial_id, TrialState.FAIL)
        else:
            self._keep(entry, result)

    def _keep(self, entry: FrozenTrial, result: dict) -> None:
        from optuna.trial import TrialState

        finished = datetime.now().isoformat(timespec="seconds")
        for name, value in {"result": result, "finished": finished, "versions": versions()}.items():
            self._storage.set_trial_user_attr(entry._trial_id, name, value)
        self._storage.set_trial_state_values(entry._trial_id, TrialState.COMPLETE, [result["test_accuracy"]])

    def table(self) -> list[dict]:
        """Return one row per data set, arm, depth and, unless selected, slope and lr; see `compare.report.table`."""
        return report.table(self.settings, self.results())

    def report(self) -> Path:
        """Write report.html, table.csv, table.md, table.tex and results.json into the folder; return the page's path.

        Raises:
            ValueError: if no trial is finished.
        """
        return report.write(self.out, self.settings, self.results(), self.failures(), self.counts())

    def results(self) -> list[dict]:
        """Return the finished trials, {"config", "result", "versions"}, in the order of `Settings.trials`."""
        return self._finished(self._wanted_trials())

    def _finished(self, trials: Sequence[Trial]) -> list[dict]:
        entries = self._entries()
        keys = [_digest(trial.config()) for trial in trials]
        finished = [entries[key] for key in keys if key in entries and entries[key].state.name == "COMPLETE"]
        return [{name: entry.user_attrs[name] for name in ("config", "result", "versions")} for entry in finished]

    def failures(self) -> list[dict]:
        """Return the failed trials, {"config", "error"}."""
        entries = [entry for key, entry in self._entries().items() if key in self._wanted]
        failed = [entry for entry in entries if entry.state.name == "FAIL"]
        return [{name: entry.user_attrs[name] for name in ("config", "error")} for entry in failed]


def _read_settings(path: Path) -> Settings:
    try:
        return Settings.of(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: expected the settings of a study, got {error}") from error


def _digest(config: dict) -> str:
    """Return digits that identify a trial, on whatever machine it runs."""
    identity = {name: value for name, value in config.items() if name not in _ELSEWHERE}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def _key(entry: FrozenTrial) -> str:
    return _digest(entry.user_attrs["config"])


def _without_seed(entry: FrozenTrial) -> str:
    return _digest(entry.user_attrs["config"] | {"seed": 0, "fold": None})


def _is_requeued(entry: FrozenTrial) -> bool:
    return entry.state.name == "FAIL" and "error" not in entry.user_attrs


def _add(study: optuna.Study, config: dict) -> None:
    import optuna

    waiting = optuna.trial.create_trial(state=optuna.trial.TrialState.WAITING, user_attrs={"config": config})
    study.add_trial(waiting)


def _requeue(study: optuna.Study, entry: FrozenTrial) -> None:
    """Add a trial again; Optuna calls this once for each trial whose heartbeats have stopped."""
    _add(study, entry.user_attrs["config"])


def versions() -> dict[str, str]:
    """Return the installed versions of the packages that results depend on."""
    installed = {}
    for package in PACKAGES:
        with contextlib.suppress(ImportError):
            installed[package] = version(package)
    return installed


@contextlib.contextmanager
def _heartbeats(storage: RDBStorage, trial_ids: Sequence[int]) -> Iterator[None]:
    """Send heartbeats immediately, and then every few seconds while the block runs."""
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
    """Report a damaged, locked or unreachable database in one line."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except ImportError as error:
        remedy = '; pip install "htaf-snn[postgres]"' if url.startswith("postgresql") else ""
        raise OSError(f"storage: the database {url} cannot be used: {error}{remedy}") from error
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise OSError(f"storage: the database {url} cannot be used: {reason}") from error


def _stop(workers: Sequence[subprocess.Popen]) -> None:
    """Send SIGTERM until every worker has requeued its trial and exited; a C callback can swallow a signal."""
    while any(worker.poll() is None for worker in workers):
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
        time.sleep(1)


def _exit(*_) -> None:
    sys.exit(143)


def _work(out: str, storage: str, *options: str) -> None:
    """Work on a study in a process started by `Study.run`."""
    torch.set_num_threads(1)
    # Ctrl-C reaches all processes of a terminal; the parent process stops this one by SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _exit)
    Study(out, storage=storage).work(stack_seeds="stack-seeds" in options)


if __name__ == "__main__":
    keep_freed()
    _work(*sys.argv[1:])
