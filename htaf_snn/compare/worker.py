"""The process of a worker, started by `Study.run`: python -m htaf_snn.compare.worker DIR DATABASE [stack-seeds]."""

from __future__ import annotations

import signal
import sys

import torch

from .._memory import keep_freed
from .study import Study
from .working import stop


def main(out: str, storage: str, *options: str) -> None:
    """Work on a study until nothing is left."""
    keep_freed()
    torch.set_num_threads(1)
    # Ctrl-C reaches all processes of a terminal; the parent process stops this one by SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, stop)
    Study(out, storage=storage).work(stack_seeds="stack-seeds" in options)


if __name__ == "__main__":
    main(*sys.argv[1:])
