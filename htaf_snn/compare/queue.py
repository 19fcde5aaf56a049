"""The trials of a study in a database, taken by workers. Optuna, and its private names, stand here alone.

A worker takes a waiting trial by setting its state, in which only one worker can succeed, and sends heartbeats while it
trains. When they stop, other workers requeue the trial.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .entries import Entry, key_of
from .own_files import digests
from .versions import versions

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

STATES = {
    "WAITING": "waiting", "RUNNING": "running", "COMPLETE": "finished", "FAIL": "failed", "PRUNED": "stopped",
}  # fmt: skip
_NAME = "htaf-snn compare"
_HEARTBEAT_S = 5
_GRACE_S = 20


class Queue:
    """The trials of a study.

    Args:
        url: of the database.
        lock: path of a file that processes of one machine lock; for SQLite, one beside the database.
        read_only: write nothing, as for a report; the database has to have a study.

    Within `database_errors` faults of the database are reported in one line.
    """

    def __init__(self, url: str, lock: Path, read_only: bool = False):
        import optuna

        file = Path(url.removeprefix("sqlite:///"))
        is_file = url.startswith("sqlite:///") and not url.startswith("sqlite:///file:")
        if read_only and is_file and not file.is_file():
            raise FileNotFoundError(f"storage: expected the database of a study, got no file {file}")
        self._lock = file.with_name(f".{file.stem}.lock") if is_file else lock
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with _without_warnings(), contextlib.nullcontext() if read_only else self._locked():
            self._storage = optuna.storages.RDBStorage(
                url,
                engine_kwargs={"connect_args": {"timeout": 60}} if url.startswith("sqlite") else None,
                heartbeat_interval=_HEARTBEAT_S,
                grace_period=_GRACE_S,
                heartbeat_stale_trial_callback=_requeue,
                skip_compatibility_check=read_only,
                skip_table_creation=read_only,
            )
            weakref.finalize(self, _close, self._storage)
            if read_only:
                self._study = optuna.load_study(storage=self._storage, study_name=_NAME)
            else:
                self._study = optuna.create_study(storage=self._storage, study_name=_NAME, load_if_exists=True)

    def _locked(self) -> contextlib.AbstractContextManager:
        from filelock import FileLock

        return FileLock(self._lock)

    def entries(self) -> dict[str, Entry]:
        """Return one entry per trial, by its key: the first that was not requeued.

        Two machines that started at the same time may both have added a trial; only the first entry counts.
        """
        entries: dict[str, Entry] = {}
        for frozen in self._study.get_trials(deepcopy=False):
            stored = frozen.user_attrs
            is_requeued = frozen.state.name == "FAIL" and "error" not in stored
            key = key_of(stored["config"])
            if not is_requeued and key not in entries:
                entries[key] = Entry(frozen._trial_id, key, stored["config"], STATES[frozen.state.name], stored)
        return entries

    def add_missing(self, configs: Mapping[str, Mapping[str, Any]]) -> bool:
        """Add the trials, by their keys, that are not in the database; return whether there were any."""
        with self._locked():
            known = {key_of(frozen.user_attrs["config"]) for frozen in self._study.get_trials(deepcopy=False)}
            missing = [config for key, config in configs.items() if key not in known]
            for config in missing:
                _add(self._study, config)
        return bool(missing)

    def settings(self) -> dict[str, Any] | None:
        """Return the settings of the study that the database has, None if none were left there."""
        return self._study.user_attrs.get("settings")

    def keep_settings(self, settings: Mapping[str, Any]) -> None:
        """Leave the study's settings for the other machines, and note the seeds before if there are results."""
        before = self.settings()
        if before and any(entry.state == "finished" for entry in self.entries().values()):
            # Before the settings, with which another machine may extend the study further.
            self._study.set_user_attr("extended_from", [*self.extended_from(), before["seeds"]])
        self._study.set_user_attr("settings", {**settings})

    def extended_from(self) -> list[int]:
        """Return the numbers of seeds that the study had when it was extended although it had results."""
        return self._study.user_attrs.get("extended_from", [])

    def take(self, keys: Collection[str], stacks: bool = False) -> list[Entry]:
        """Take a waiting trial with one of the keys for this process alone; if asked, also its other seeds.

        The versions of the packages and of files of surrogates are stored with it.
        """
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        taken: list[Entry] = []
        # A server locks the trial's row; SQLite cannot, so two workers could both see it waiting.
        with self._locked():
            for entry in self.entries().values():
                if entry.state != "waiting" or entry.key not in keys:
                    continue
                if taken and not (stacks and _without_seed(entry) == _without_seed(taken[0])):
                    continue
                with contextlib.suppress(UpdateFinishedTrialError):
                    # Before the state is set: without a heartbeat nobody would notice if this process were killed.
                    self._storage.record_heartbeat(entry.number)
                    if self._storage.set_trial_state_values(entry.number, TrialState.RUNNING):
                        own = versions() | digests(entry.config)
                        self._storage.set_trial_user_attr(entry.number, "versions", own)
                        taken.append(entry)
        return taken

    def finish(self, entry: Entry, result: dict[str, Any]) -> None:
        """Store the result of a trial."""
        finished = datetime.now().isoformat(timespec="seconds")
        self._end(entry, "COMPLETE", [result["test_accuracy"]], result=result, finished=finished)

    def fail(self, entry: Entry, error: str, traceback: str) -> None:
        """Store why a trial failed; it is not repeated."""
        self._end(entry, "FAIL", error=error, traceback=traceback)

    def give_up(self, entry: Entry, epoch: int) -> None:
        """Store that a trial was ended after so many epochs, by successive halving."""
        self._end(entry, "PRUNED", epoch=epoch)

    def is_to_end(self, entry: Entry, names: Sequence[str], epoch: int, score: float) -> bool:
        """Whether successive halving ends a trial: after 1, 3, 9, … epochs, unless it is among the best third.

        Those are compared that have equal values of `names` in their configurations and came so far before; each
        counts once, also if it was interrupted and is repeated. Optuna's pruner counts all attempts.

        Args:
            entry: the trial, which is running.
            names: of the configuration.
            epoch: counted from 1.
            score: of this epoch; higher is better.
        """
        if 3 ** round(math.log(epoch, 3)) != epoch:
            return False
        self._storage.set_trial_user_attr(entry.number, f"score after {epoch}", score)
        scores = {
            other.key: other.stored[f"score after {epoch}"]
            for other in self.entries().values()
            if f"score after {epoch}" in other.stored and all(other.config[n] == entry.config[n] for n in names)
        } | {entry.key: score}
        best = sorted(scores.values(), reverse=True)
        return score < best[max(len(best) // 3, 1) - 1]

    def _end(self, entry: Entry, state: str, values: list[float] | None = None, **attributes: Any) -> None:
        """End a trial, unless others run it again, as the heartbeats had stopped for long."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        with contextlib.suppress(UpdateFinishedTrialError):
            for name, value in attributes.items():
                _retried(self._storage.set_trial_user_attr, entry.number, name, value)
            _retried(self._storage.set_trial_state_values, entry.number, TrialState[state], values)

    def requeue(self, entry: Entry) -> None:
        """Let others run a trial that this process has taken, unless it has just ended."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        with contextlib.suppress(UpdateFinishedTrialError):
            _retried(self._storage.set_trial_state_values, entry.number, TrialState.FAIL)
            _retried(_add, self._study, entry.config)

    def requeue_stale(self) -> None:
        """Let others run the trials whose heartbeats have stopped."""
        import optuna

        with _without_warnings():
            optuna.storages.fail_stale_trials(self._study)

    @contextlib.contextmanager
    def heartbeats(self, entries: Sequence[Entry]) -> Iterator[None]:
        """Send heartbeats immediately, and then every few seconds while the block runs."""
        done = threading.Event()

        def beat() -> None:
            for entry in entries:
                self._storage.record_heartbeat(entry.number)

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


def _retried(call: Callable, *arguments: Any, attempts: int = 5) -> None:
    """Call, and again where SQLite refuses at once, as two processes that read want to write."""
    import optuna

    try:
        call(*arguments)
    except optuna.exceptions.StorageInternalError:
        if attempts == 1:
            raise
        time.sleep(0.3)
        _retried(call, *arguments, attempts=attempts - 1)


def _without_warnings() -> contextlib.AbstractContextManager:
    """Return a block without Optuna's warning that its heartbeats are experimental."""
    import optuna

    return warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning)


def _close(storage: optuna.storages.RDBStorage) -> None:
    """Close the connections to a database."""
    storage.remove_session()
    storage.engine.dispose()


def _without_seed(entry: Entry) -> str:
    return key_of(entry.config | {"seed": 0, "fold": None})


def _add(study: optuna.Study, config: Mapping[str, Any]) -> None:
    import optuna

    waiting = optuna.trial.create_trial(state=optuna.trial.TrialState.WAITING, user_attrs={"config": dict(config)})
    study.add_trial(waiting)


def _requeue(study: optuna.Study, frozen: FrozenTrial) -> None:
    """Add a trial again; Optuna calls this once for each trial whose heartbeats have stopped."""
    _add(study, frozen.user_attrs["config"])


def stored_settings(url: str, attempts: int = 4) -> dict[str, Any] | None:
    """Return the settings that a database has, None if it has no study."""
    import optuna
    from sqlalchemy.exc import IntegrityError, ProgrammingError

    storage = None
    try:
        storage = optuna.storages.RDBStorage(url)
        return optuna.load_study(study_name=_NAME, storage=storage).user_attrs.get("settings")
    except KeyError:  # nothing of that name
        return None
    except (IntegrityError, ProgrammingError):  # another machine is making the tables
        if not attempts:
            raise
        time.sleep(1)
        return stored_settings(url, attempts - 1)
    finally:
        if storage is not None:
            _close(storage)
