"""Run the measurements behind the claims of the documentation.

    python -m benchmarks.evidence list
    python -m benchmarks.evidence run dhn-paths --quick
    python -m benchmarks.evidence run dhn-paths --data DIR
    python -m benchmarks.evidence all --quick
    python -m benchmarks.evidence page

Finished trainings are not repeated, so an interrupted command continues. DIR has the folders fashion_mnist, nmnist and
cifar10; by default it is HTAF_DATA. `--quick` takes minutes, needs no data, and shows that a command runs; its figures
mean nothing. `page` writes docs/results.md and the tables of other pages from benchmarks/results/.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from .claims import CLAIMS, named
from .page import write
from .running import RESULTS, command_of, run


def main() -> None:
    arguments = _parser().parse_args()
    if arguments.action == "list":
        for claim in CLAIMS:
            measured = "measured" if (RESULTS / f"{claim.name}.json").is_file() else "not measured"
            print(f"{claim.name:<29}{measured:<14}{claim.question}")
    elif arguments.action == "page":
        print(*write(), sep="\n")
    else:
        _run(arguments)


def _run(arguments: argparse.Namespace) -> None:
    claims = CLAIMS if arguments.action == "all" else [named(arguments.name)]
    data = arguments.data or os.environ.get("HTAF_DATA")
    for claim in claims:
        print(command_of(claim, arguments.quick), file=sys.stderr)
        path = run(
            claim,
            quick=arguments.quick,
            data=Path(data) if data else None,
            out=arguments.out,
            workers=arguments.workers,
        )
        print(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.evidence", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("list", help="print the claims")
    actions.add_parser("page", help="write docs/results.md, its figures and the tables of other pages")
    for action, text in (("run", "run a claim's studies"), ("all", "run those of all claims")):
        options = actions.add_parser(action, help=text)
        if action == "run":
            options.add_argument("name", help="a name that `list` prints")
        options.add_argument("--quick", action="store_true", help="in minutes, on offline data")
        options.add_argument("--data", type=Path, help="folder of the data sets; by default HTAF_DATA")
        options.add_argument(
            "--out", type=Path, default=Path("runs/evidence"), help="folder of the studies; by default runs/evidence"
        )
        options.add_argument("--workers", type=int, default=os.cpu_count(), help="processes, with one thread each")
    return parser


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
