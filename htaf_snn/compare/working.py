"""What a process does for a study: it takes one trial after another, alone or with the others of `torchrun`."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

from .. import _files
from ..training import Processes
from . import selection, stacking, trial
from .entries import Entry

if TYPE_CHECKING:
    from tqdm import tqdm

    from .study import Study

_POLL_S = 0.3


def ended(counts: dict[str, int]) -> int:
    """Return the number of trials that are neither waiting nor running."""
    return sum(counts.values()) - counts["waiting"] - counts["running"]


def work_together(study: Study, processes: Processes, progress: bool) -> None:
    """Run the remaining trials, each in all of these processes; rank 0 alone reads and writes the study."""
    from tqdm import tqdm

    if study.settings.budget == "halving":
        raise ValueError("budget: expected full under torchrun, got halving")
    signal.signal(signal.SIGTERM, stop)
    bar = tqdm(total=len(study.settings.trials()), unit="trial", disable=not (progress and processes.is_main))
    while True:
        taken = _next(study, bar) if processes.is_main else None
        shared = processes.broadcast(None if taken is None else study.wanted[taken.key])
        if shared is None:
            bar.close()
            processes.shutdown()
            return
        if taken is not None:
            _try(study, [taken], processes=processes)
        else:
            with contextlib.suppress(Exception):  # rank 0 records it
                trial.run(shared, processes)


def _next(study: Study, bar: tqdm) -> Entry | None:
    """Take the next trial; None when nothing is left to run here or elsewhere."""
    while True:
        counts = study.counts()
        bar.total = sum(counts.values())
        bar.update(ended(counts) - bar.n)
        study.queue.requeue_stale()
        taken = next(iter(study.queue.take(study.wanted)), None)
        if taken is not None or not (study.add_missing() or study.counts()["running"]):
            return taken
        time.sleep(_POLL_S)


def work(study: Study, stack_seeds: bool = False) -> None:
    """Run waiting trials in this process until none is waiting or running; `stack_seeds` as in `run`."""
    while True:
        study.queue.requeue_stale()
        # A signal after the trial is taken and before `_try` can requeue it would leave it running.
        with _files.uninterrupted(signal.SIGINT, signal.SIGTERM) as allow_signals:
            taken = study.queue.take(study.wanted, stack_seeds)
            if taken:
                _try(study, taken, allow_signals)
                continue
        if study.counts()["running"] == 0:
            return
        time.sleep(_POLL_S)


def _try(
    study: Study,
    taken: list[Entry],
    allow_signals: Callable[[], None] = lambda: None,
    processes: Processes | None = None,
) -> None:
    """Run the trials that this process has taken, stacked if there is more than one."""
    remaining = [*taken]
    with study.queue.heartbeats(taken):
        try:
            allow_signals()
            if len(taken) > 1:
                with contextlib.suppress(stacking.StackingError):
                    results = stacking.run([study.wanted[entry.key] for entry in taken])
                    while remaining:
                        study.queue.finish(remaining[0], results[-len(remaining)])
                        del remaining[0]
            while remaining:
                _run_one(study, remaining[0], processes)
                del remaining[0]
        except (KeyboardInterrupt, SystemExit) as stopped:
            if isinstance(stopped, SystemExit):  # of a worker that was asked to stop
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            for entry in remaining:
                study.queue.requeue(entry)
            raise


def _run_one(study: Study, entry: Entry, processes: Processes | None) -> None:
    is_watched = study.settings.budget == "halving" and entry.config["seed"] < study.settings.selecting_seeds
    arm = (*selection.SETTING, *selection.ARM)

    def is_to_end(epoch: int, score: float) -> bool:
        return is_watched and study.queue.is_to_end(entry, arm, epoch, score)

    try:
        result = trial.run(study.wanted[entry.key], processes, is_to_end)
    except trial.StoppedError as stopped:
        study.queue.give_up(entry, stopped.epoch)
    except Exception as error:
        study.queue.fail(entry, f"{type(error).__name__}: {error}", traceback.format_exc())
    else:
        study.queue.finish(entry, result)


def stop(*_) -> None:
    """Leave the process, as a handler of SIGTERM."""
    sys.exit(143)
