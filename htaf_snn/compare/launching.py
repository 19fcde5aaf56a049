"""Starting the workers of a study: as processes of this machine, or as jobs of a Slurm cluster."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TextIO

from .. import _files
from .._checks import check_choice
from .._packages import needs

LAUNCHERS = ("local", "slurm")
_CLUSTER = "slurm"  # as submitit names it
_POLL_S = 0.3
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class Worker(Protocol):
    """A worker that was started."""

    def is_done(self) -> bool: ...

    def problem(self) -> str | None:
        """Why it failed, None if it did not."""

    def ask_to_stop(self) -> None: ...


def check(launcher: str, storage: str, options: Mapping[str, Any]) -> None:
    """Raise ValueError unless there is such a launcher, it takes options, and its machines can share the database."""
    check_choice("launcher", launcher, LAUNCHERS)
    if launcher == "local" and options:
        raise ValueError(f"slurm: expected no options with the launcher local, got {', '.join(options)}")
    if launcher == "slurm" and storage.startswith("sqlite"):
        expected = "the URL of a server, such as postgresql+psycopg://host/name"
        raise ValueError(f"storage: expected {expected}, which the machines of a cluster can share, got a file")


def command(out: Path, storage: str, stack_seeds: bool) -> list[str]:
    """Return the command of a worker."""
    options = ["stack-seeds"] * stack_seeds
    return [sys.executable, "-W", "ignore", "-m", "htaf_snn.compare.worker", str(out.resolve()), storage, *options]


def launched(launcher: str, count: int, own: Sequence[str], folder: Path, options: Mapping[str, Any]) -> list[Worker]:
    """Start workers.

    Args:
        launcher: one of `LAUNCHERS`.
        count: of the workers.
        own: the command of each.
        folder: for the logs of a cluster's jobs.
        options: of `submitit.AutoExecutor.update_parameters`, such as timeout_min; of a cluster only.

    Raises:
        ValueError: if an option is unknown.
        ImportError: if submitit is not installed.
    """
    if not count:
        return []
    if launcher == "local":
        return [Process(own) for _ in range(count)]
    executor = executor_of(folder, options)
    return [Job(executor, own) for _ in range(count)]


def executor_of(folder: Path, options: Mapping[str, Any]) -> Any:
    """Return what submits the jobs; raise as `launched`."""
    with needs("slurm"):
        import submitit
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=_CLUSTER)
    except RuntimeError as error:
        raise ValueError(f"launcher: expected a machine that can submit jobs to Slurm, got another: {error}") from error
    try:
        executor.update_parameters(**{"name": "htaf-snn", "cpus_per_task": 1, "timeout_min": 24 * 60} | {**options})
    except (NameError, TypeError) as error:
        raise ValueError(f"slurm: expected options of a cluster's job, got {dict(options)}: {error}") from error
    return executor


def watch(workers: Sequence[Worker], show: Callable[[], None]) -> None:
    """Wait for workers, calling `show` every now and then; stop them all on Ctrl-C or an error.

    Raises:
        RuntimeError: if a worker itself fails.
    """
    try:
        while True:
            # In a callback of the database's library Ctrl-C would be swallowed.
            with _files.uninterrupted(signal.SIGINT):
                running = not all(worker.is_done() for worker in workers)
                show()
            if not running:
                break
            time.sleep(_POLL_S)
    except BaseException:
        while not all(worker.is_done() for worker in workers):
            for worker in workers:  # repeatedly, as a C callback can swallow a signal
                worker.ask_to_stop()
            time.sleep(1)
        raise
    for problem in filter(None, (worker.problem() for worker in workers)):
        raise RuntimeError(f"a worker failed: {problem.strip().splitlines()[-1]}")


class Process:
    """A worker in a process of this machine, which requeues its trial when it is asked to stop."""

    def __init__(self, own: Sequence[str]):
        self._log: TextIO = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(own, env=os.environ | _ONE_THREAD, stderr=self._log)

    def is_done(self) -> bool:
        if self._process.poll() is None:
            return False
        if not self._log.closed:
            self._log.seek(0)
            self._said = self._log.read().strip()
            self._log.close()
        return True

    def problem(self) -> str | None:
        return (self._said or "killed") if self._process.returncode else None

    def ask_to_stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)


class Job:
    """A worker in a job of a cluster, whose trial others run when its heartbeats have stopped."""

    def __init__(self, executor: Any, own: Sequence[str]):
        from submitit.helpers import CommandFunction

        # Through env(1), as the job's own environment is not known here.
        started = ["env", *(f"{name}={value}" for name, value in _ONE_THREAD.items()), *own]
        self._job = executor.submit(CommandFunction(started, verbose=False))

    def is_done(self) -> bool:
        return self._job.done()

    def problem(self) -> str | None:
        error = self._job.exception()
        return None if error is None else f"job {self._job.job_id}: {self._job.stderr() or error}"

    def ask_to_stop(self) -> None:
        self._job.cancel()
