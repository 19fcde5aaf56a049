"""Studies: every combination of data set, surrogate, slope, depth, learning rate and seed, trained once, by workers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from .. import _files
from ..training import Processes
from ..training.folder import device_of
from . import findings, launching, own_files, report, selection, stacking, working
from .databases import database_errors, keep_storage, own_storage, storage_of
from .entries import ELSEWHERE, key_of
from .queue import Queue, stored_settings
from .settings import Settings
from .trial import Trial

SETTINGS = "study.json"
_OWN = {*ELSEWHERE, "seeds"}
"""What can be given alone, for a study that has the rest."""
_GROWTH = (
    "; a study grows by seeds only; for another surrogate begin a study in another folder (its trials are trained anew)"
)


class Study:
    """A study in a folder.

    Args:
        out: the folder; created if it does not exist. A study in it is continued.
        storage: URL of a database that several machines share, such as "postgresql+psycopg://host/name"; None for that
            which the folder was used with before, at first an SQLite file in it.
        read_only: write nothing into the folder and the database, for `report` and the like alone; without settings.
        **settings: as in `Settings.of`; without any, the study in the folder is continued with its own settings.

    Raises:
        ValueError: if a setting is wrong, or the folder contains something else or a study with other settings; the
            message shows the difference. More seeds extend a study, and the device, the place of the data and the
            selection may differ; or if the file of a surrogate of yours has changed since trials began.
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

    def __init__(self, out: str | PathLike, *, storage: str | None = None, read_only: bool = False, **settings):
        self.out = Path(out)
        self.storage = storage_of(self.out, storage)
        if read_only and settings:
            raise ValueError(f"read_only: expected a study without new settings, got {', '.join(settings)}")
        values = settings if read_only or self.storage == own_storage(self.out) else self._joined(settings)
        self.settings, before = (Settings.read(self.out / SETTINGS), None) if read_only else self._settled(values)
        with nullcontext() if read_only else _files.new_folder(self.out), database_errors(self.storage):
            self.queue = Queue(self.storage, self.out / ".study.lock", read_only)
            names = self.settings.trials()[0].config().keys()
            if any(entry.config.keys() != names for entry in self.queue.entries().values()):
                again = report.command(self.settings)
                raise ValueError(f"{out}: expected a study of this version, got an earlier one's; repeat {again}")
            if read_only:
                self.settings = self._extended()
                self.wanted = {key_of(one.config()): one for one in self._trials()}
            else:
                # Before the settings are written.
                own_files.check_unchanged(self._extended(), self.queue.entries().values())
                self.settings = self._keep(values, self.settings, before)
                self.add_missing()

    def _joined(self, values: dict) -> dict:
        """Return the settings of the study in the database with this machine's own settings, or `values` if they match.

        Raises:
            ValueError: if they do not, or there are neither.
        """
        with database_errors(self.storage):
            stored = stored_settings(self.storage)
        if (self.out / SETTINGS).is_file():
            return values
        if stored is None:
            if not {*values} - {*ELSEWHERE}:
                expected = "settings, or a database with a study"
                raise ValueError(f"storage: expected {expected}, got {self.storage} without one")
            return values
        if not {*values} - _OWN:
            return {name: value for name, value in stored.items() if name not in ELSEWHERE} | values
        own, theirs = Settings.of(**values), Settings.of(**stored)
        _refuse_changes(self.storage, replace(own, seeds=max(own.seeds, theirs.seeds)), theirs)
        return values

    def _settled(self, values: dict) -> tuple[Settings, Settings | None]:
        """Return the settings from `values` if they match the folder's or add seeds, and the folder's if it has any."""
        path = self.out / SETTINGS
        before = Settings.read(path) if path.is_file() else None
        if before is not None and not values:
            return before, before
        if before is not None:
            kept = before.as_dict()
            values = {name: kept[name] for name in (ELSEWHERE if {*values} - _OWN else kept)} | values
        settings = Settings.of(**values)
        changed = [] if before is None else settings.changes(before)
        if changed:
            only_seeds = all(change.startswith("seeds:") for change in changed)
            remedy = f"; htaf-snn report {self.out} shows what is there" if only_seeds else _GROWTH
            raise ValueError(f"{path}: the study in this folder has other settings; {'; '.join(changed)}{remedy}")
        if before is None and self.out.is_dir():
            names = sorted(path.name for path in self.out.iterdir() if not path.name.startswith((".", "study.")))
            if names:
                raise ValueError(f"out: expected a new folder or a study's, got {self.out}, which contains {names[0]}")
        if settings != before:
            settings.check()
        return settings, before

    def _keep(self, values: dict, settings: Settings, before: Settings | None) -> Settings:
        """Leave what `_settled` returned for `values` in the folder, with the place of the database."""
        from filelock import FileLock

        path = self.out / SETTINGS
        with FileLock(self.out / ".study.lock"):
            if path.is_file() and Settings.read(path) != before:  # by another start at the same time
                settings, before = self._settled(values)
            if settings != before:
                with _files.replacing(path) as temporary:
                    temporary.write_text(json.dumps(settings.as_dict(), indent=2) + "\n")
        keep_storage(self.out, self.storage)
        return settings

    def _extended(self) -> Settings:
        """Return the settings with as many seeds as the database's, if these are more.

        Raises:
            ValueError: if they are of another study.
        """
        stored = self.queue.settings()
        if stored is None:
            return self.settings
        theirs = Settings.of(**stored)
        extended = replace(self.settings, seeds=max(self.settings.seeds, theirs.seeds))
        _refuse_changes(self.storage, extended, theirs)
        return extended

    def _agree(self) -> None:
        """Take more seeds from the database's settings, or leave one's own there for the other machines."""
        stored, extended = self.queue.settings(), self._extended()
        if extended != self.settings:
            values = extended.as_dict()
            self.settings = self._keep(values, *self._settled(values))
        if stored is None or self.settings.seeds > stored["seeds"]:
            self.queue.keep_settings(self.settings.as_dict())

    def add_missing(self) -> bool:
        """Add the trials that are to run and are not in the database yet; return whether there were any."""
        own_files.check_unchanged(self.settings, self.queue.entries().values())
        self._agree()  # another machine may have added seeds
        # A study that selects otherwise now may have more trials in the database.
        self.wanted = {key_of(one.config()): one for one in self._trials()}
        return self.queue.add_missing({key: one.config() for key, one in self.wanted.items()})

    def _trials(self) -> list[Trial]:
        """Return all trials that are to run: those that select, and once these have ended, the others."""
        trials, entries = self.settings.trials(), self.queue.entries()
        keys = [key_of(one.config()) for one in trials]
        ended = (key in entries and entries[key].state not in ("waiting", "running") for key in keys)
        if self.settings.select == "none" or not all(ended):
            return trials
        stored = self._stored("finished", trials, "config", "result")
        return trials + self.settings.further(selection.chosen(self.settings, stored))

    def counts(self) -> dict[str, int]:
        """Return the numbers of waiting, running, finished and failed trials, and of those that halving stopped."""
        counts = {"waiting": 0, "running": 0, "finished": 0, "failed": 0}
        if self.settings.budget == "halving":
            counts["stopped"] = 0
        for key, entry in self.queue.entries().items():
            counts[entry.state] += key in self.wanted
        return counts

    def run(
        self,
        workers: int = 1,
        progress: bool = True,
        stack_seeds: bool = False,
        launcher: str = "local",
        slurm: Mapping[str, Any] = {},
    ) -> dict[str, int]:
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
            launcher: "local", or "slurm" for workers in jobs of a cluster, which share the folder and the database.
            slurm: options of a cluster's jobs, as submitit takes them, such as timeout_min and slurm_partition.

        Returns:
            The final `counts`.

        Raises:
            RuntimeError: if a worker itself fails.
            ImportError: if the launcher's library is not installed.
            ValueError: if the launcher or its options are unknown, or a cluster is to share a database that is a file;
                if stack_seeds is set under `torchrun`, or the trials cannot be stacked, see `stacking.run`.
        """
        launching.check(launcher, self.storage, slurm)
        if stack_seeds:
            stacking.check_all(self.settings.trials())
        processes = Processes.launched(device_of(self.settings.shared.device).type)
        if processes is not None:
            if stack_seeds or launcher != "local":
                name = "stack_seeds" if stack_seeds else "launcher"
                raise ValueError(f"{name}: not supported under torchrun; leave it out")
            working.work_together(self, processes, progress)
            return self.counts()
        while True:
            self._run_workers(workers, progress, stack_seeds, launcher, slurm)
            added, counts = self.add_missing(), self.counts()
            # Another machine may have added the trials of the other seeds.
            if not (added or counts["waiting"] or counts["running"]):
                return counts

    def _run_workers(
        self, workers: int, progress: bool, stack_seeds: bool, launcher: str, slurm: Mapping[str, Any]
    ) -> None:
        """Run the trials that are in the database in workers, and wait for them."""
        from tqdm import tqdm

        own_files.check_known_elsewhere(self.settings)
        counts = self.counts()
        done, count = working.ended(counts), min(workers, counts["waiting"] + counts["running"])
        own = launching.command(self.out, self.storage, stack_seeds)
        with tqdm(total=sum(counts.values()), initial=done, unit="trial", disable=not progress) as bar:

            def show() -> None:
                counts = self.counts()
                bar.set_postfix(failed=counts["failed"], refresh=False)
                bar.update(working.ended(counts) - bar.n)

            launching.watch(launching.launched(launcher, count, own, self.out / ".jobs", slurm), show)

    def work(self, stack_seeds: bool = False) -> None:
        """Run waiting trials in this process until none is waiting or running; `stack_seeds` as in `run`."""
        working.work(self, stack_seeds)

    def table(self) -> list[dict]:
        """Return one row per data set, arm, depth and, unless selected, slope and lr; see `findings.table`."""
        return findings.table(self.settings, self.results())

    def report(self, columns: Sequence[str] = (), to: str | PathLike | None = None) -> Path:
        """Write report.html, table.csv, table.md, table.tex, results.json and figures/; return the page's path.

        Args:
            columns: of table.tex, by their names in table.csv; without them, those that the page shows at first.
            to: the folder to write into; by default the study's.

        Raises:
            ValueError: if no trial is finished, or there is no such column.
        """
        ended = self.results(), self.failures(), self.stopped()
        outcome = report.Outcome(self.out, self.settings, *ended, self.counts(), self.queue.extended_from())
        return report.write(outcome, self.out if to is None else Path(to), columns)

    def results(self) -> list[dict]:
        """Return the finished trials, {"config", "result", "versions"}, in the order of `Settings.trials`."""
        return self._stored("finished", self._trials(), "config", "result", "versions")

    def failures(self) -> list[dict]:
        """Return the failed trials, {"config", "error"}."""
        return self._stored("failed", [*self.wanted.values()], "config", "error")

    def stopped(self) -> list[dict]:
        """Return the trials that halving stopped, {"config", "epoch"}."""
        return self._stored("stopped", [*self.wanted.values()], "config", "epoch")

    def _stored(self, state: str, trials: Sequence[Trial], *names: str) -> list[dict]:
        entries, keys = self.queue.entries(), [key_of(one.config()) for one in trials]
        own = [entries[key] for key in keys if key in entries and entries[key].state == state]
        return [{name: entry.stored[name] for name in names} for entry in own]


def _refuse_changes(storage: str, settings: Settings, theirs: Settings) -> None:
    """Raise ValueError unless settings are those of the study in a database."""
    changed = settings.changes(theirs)
    if changed:
        raise ValueError(f"{storage}: the study in this database has other settings; {'; '.join(changed)}{_GROWTH}")
