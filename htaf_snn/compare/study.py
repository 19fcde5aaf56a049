"""Studies: every combination of data set, surrogate, slope, depth, learning rate and seed, trained once, by workers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from .. import _files
from ..training import Processes
from ..training.folder import device_of
from . import findings, report, selection, stacking, trial
from .queue import ELSEWHERE, Entry, Queue, database_errors, key_of
from .settings import Settings
from .trial import Trial

if TYPE_CHECKING:
    from tqdm import tqdm

SETTINGS = "study.json"
_POLL_S = 0.3


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
        with database_errors(self.storage):
            self.queue = Queue(self.storage, self.out / ".study.lock")
            names = self.settings.trials()[0].config().keys()
            if any(entry.config.keys() != names for entry in self.queue.entries().values()):
                again = report.command(self.settings)
                raise ValueError(f"{out}: expected a study of this version, got an earlier one's; repeat {again}")
            self._add_missing()

    def _settle(self, values: dict) -> Settings:
        """Return the settings from `values` if they match the folder's or add seeds, or the folder's without values."""
        from filelock import FileLock

        path = self.out / SETTINGS
        before = Settings.read(path) if path.is_file() else None
        if before is not None and not values:
            return before
        if before is not None:
            values = {name: value for name, value in before.as_dict().items() if name in ELSEWHERE} | values
        settings = Settings.of(**values)
        changed = [] if before is None else settings.changes(before)
        if changed:
            raise ValueError(f"{path}: the study in this folder has other settings; " + "; ".join(changed))
        if before is None and self.out.is_dir():
            names = sorted(path.name for path in self.out.iterdir() if not path.name.startswith((".", "study.")))
            if names:
                raise ValueError(f"out: expected a new folder or a study's, got {self.out}, which contains {names[0]}")
        if settings != before:
            settings.check()
            self.out.mkdir(parents=True, exist_ok=True)
            with FileLock(self.out / ".study.lock"):
                overtaken = path.is_file() and Settings.read(path) != before  # by another start at the same time
                if not overtaken:
                    with _files.replacing(path) as temporary:
                        temporary.write_text(json.dumps(settings.as_dict(), indent=2) + "\n")
            if overtaken:
                return self._settle(values)
        return settings

    def _add_missing(self) -> bool:
        """Add the trials that are to run and are not in the database yet; return whether there were any."""
        # A study that selects otherwise now may have more trials in the database.
        self._wanted = {key_of(one.config()): one for one in self._trials()}
        return self.queue.add_missing({key: one.config() for key, one in self._wanted.items()})

    def _trials(self) -> list[Trial]:
        """Return all trials that are to run: those that select, and once these have ended, the others."""
        trials, entries = self.settings.trials(), self.queue.entries()
        keys = [key_of(one.config()) for one in trials]
        ended = (key in entries and entries[key].state in ("finished", "failed") for key in keys)
        if self.settings.select == "none" or not all(ended):
            return trials
        found = self._found("finished", trials, "config", "result")
        return trials + self.settings.further(selection.chosen(self.settings, found))

    def counts(self) -> dict[str, int]:
        """Return the numbers of waiting, running, finished and failed trials."""
        counts = {"waiting": 0, "running": 0, "finished": 0, "failed": 0}
        for key, entry in self.queue.entries().items():
            counts[entry.state] += key in self._wanted
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
            ValueError: if stack_seeds is set under `torchrun`, or the trials cannot be stacked, see `stacking.run`.
        """
        if stack_seeds:
            check_stackable(self.settings)
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

        command = [sys.executable, "-W", "ignore", "-m", "htaf_snn.compare.worker", str(self.out), self.storage]
        command += ["stack-seeds"] * stack_seeds
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        counts = self.counts()
        done, workers = counts["finished"] + counts["failed"], min(workers, counts["waiting"] + counts["running"])
        with contextlib.ExitStack() as stack:
            total = sum(counts.values())
            bar = stack.enter_context(tqdm(total=total, initial=done, unit="trial", disable=not progress))
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
                _stop_all(children)
                raise
            for child, log in zip(children, logs, strict=True):
                log.seek(0)
                if child.returncode:
                    raise RuntimeError(f"a worker failed: {(log.read().strip() or 'killed').splitlines()[-1]}")

    def _run_together(self, processes: Processes, progress: bool) -> None:
        """Run the remaining trials, each in all of these processes; rank 0 alone reads and writes the study."""
        from tqdm import tqdm

        signal.signal(signal.SIGTERM, stop)
        bar = tqdm(total=len(self.settings.trials()), unit="trial", disable=not (progress and processes.is_main))
        while True:
            taken = self._next(bar) if processes.is_main else None
            shared = processes.broadcast(None if taken is None else self._wanted[taken.key])
            if shared is None:
                bar.close()
                processes.shutdown()
                return
            if taken is not None:
                self._try([taken], processes=processes)
            else:
                with contextlib.suppress(Exception):  # rank 0 records it
                    trial.run(shared, processes)

    def _next(self, bar: tqdm) -> Entry | None:
        """Take the next trial; None when nothing is left to run here or elsewhere."""
        while True:
            counts = self.counts()
            bar.total = sum(counts.values())
            bar.update(counts["finished"] + counts["failed"] - bar.n)
            self.queue.requeue_stale()
            taken = next(iter(self.queue.take(self._wanted)), None)
            if taken is not None or not (self._add_missing() or self.counts()["running"]):
                return taken
            time.sleep(_POLL_S)

    def work(self, stack_seeds: bool = False) -> None:
        """Run waiting trials in this process until none is waiting or running; `stack_seeds` as in `run`."""
        while True:
            self.queue.requeue_stale()
            # A signal after the trial is taken and before `_try` can requeue it would leave it running.
            with _files.uninterrupted(signal.SIGINT, signal.SIGTERM) as allow_signals:
                taken = self.queue.take(self._wanted, stack_seeds)
                if taken:
                    self._try(taken, allow_signals)
                    continue
            if self.counts()["running"] == 0:
                return
            time.sleep(_POLL_S)

    def _try(
        self,
        taken: list[Entry],
        allow_signals: Callable[[], None] = lambda: None,
        processes: Processes | None = None,
    ) -> None:
        """Run the trials that this process has taken, stacked if there is more than one."""
        remaining = [*taken]
        with self.queue.heartbeats(taken):
            try:
                allow_signals()
                if len(taken) > 1:
                    with contextlib.suppress(stacking.StackingError):
                        results = stacking.run([self._wanted[entry.key] for entry in taken])
                        while remaining:
                            self.queue.finish(remaining[0], results[-len(remaining)])
                            del remaining[0]
                while remaining:
                    self._run_one(remaining[0], processes)
                    del remaining[0]
            except (KeyboardInterrupt, SystemExit) as stopped:
                if isinstance(stopped, SystemExit):  # of a worker, by `_stop_all`
                    signal.signal(signal.SIGTERM, signal.SIG_IGN)
                for entry in remaining:
                    self.queue.requeue(entry)
                raise

    def _run_one(self, entry: Entry, processes: Processes | None) -> None:
        try:
            result = trial.run(self._wanted[entry.key], processes)
        except Exception as error:
            self.queue.fail(entry, f"{type(error).__name__}: {error}", traceback.format_exc())
        else:
            self.queue.finish(entry, result)

    def table(self) -> list[dict]:
        """Return one row per data set, arm, depth and, unless selected, slope and lr; see `findings.table`."""
        return findings.table(self.settings, self.results())

    def report(self, columns: Sequence[str] = ()) -> Path:
        """Write report.html, table.csv, table.md, table.tex, results.json and figures/; return the page's path.

        Args:
            columns: of table.tex, by their names in table.csv; without them, those that the page shows at first.

        Raises:
            ValueError: if no trial is finished, or there is no such column.
        """
        return report.write(self.out, self.settings, self.results(), self.failures(), self.counts(), columns)

    def results(self) -> list[dict]:
        """Return the finished trials, {"config", "result", "versions"}, in the order of `Settings.trials`."""
        return self._found("finished", self._trials(), "config", "result", "versions")

    def failures(self) -> list[dict]:
        """Return the failed trials, {"config", "error"}."""
        return self._found("failed", [*self._wanted.values()], "config", "error")

    def _found(self, state: str, trials: Sequence[Trial], *names: str) -> list[dict]:
        entries, keys = self.queue.entries(), [key_of(one.config()) for one in trials]
        own = [entries[key] for key in keys if key in entries and entries[key].state == state]
        return [{name: entry.found[name] for name in names} for entry in own]


def check_stackable(settings: Settings) -> None:
    """Raise ValueError if the seeds of a study cannot be trained as one network."""
    try:
        stacking.check(settings.trials()[0])
    except stacking.StackingError as error:
        raise ValueError(f"stack_seeds: {error}") from None


def _stop_all(workers: Sequence[subprocess.Popen]) -> None:
    """Send SIGTERM until every worker has requeued its trial and exited; a C callback can swallow a signal."""
    while any(worker.poll() is None for worker in workers):
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
        time.sleep(1)


def stop(*_) -> None:
    """Leave the process, as a handler of SIGTERM."""
    sys.exit(143)
