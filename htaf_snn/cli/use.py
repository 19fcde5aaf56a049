"""`htaf-snn evaluate` and `htaf-snn predict`: what becomes of a run after its training."""

from __future__ import annotations

import json as json_format
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from ._app import RefusedError, as_option, command
from ._options import Json

_Run = Annotated[Path, Parameter(help="Folder of a run of `htaf-snn train` or `htaf-snn icbm`.")]
_Device = Annotated[Literal["auto", "cpu", "cuda"], Parameter(help="Where to compute.")]


@command("evaluate runs/first", "evaluate runs/first --data-root data/nmnist --json", name="evaluate")
def evaluate_command(
    run: _Run,
    *,
    data_root: Annotated[Path | None, Parameter(help="Folder of the data; by default that of the training.")] = None,
    device: _Device = "auto",
    json: Json = False,
) -> None:
    """Measure a trained network on its test data: by class, its spikes and operations, its decisions over time.

    Writes evaluation.json and evaluation.html to the folder of the run.
    """
    from ..evaluation import evaluate_run

    figures = evaluate_run(run, data_root=data_root, device=device)
    if json:
        print(json_format.dumps(figures))
        return
    print(f"test accuracy {figures['accuracy']:.4f} on {figures['samples']} samples")
    for name, value in figures["accuracy_by_class"].items():
        print(f"  {name:<24}{'no samples' if value is None else format(value, '.4f')}")
    if figures.get("acs") is not None:
        print(f"per sample {figures['acs']:.0f} accumulations and {figures['macs']:.0f} multiply-accumulates")
    if "decision_step" in figures:
        steps = len(figures["accuracy_over_time"])
        print(f"decided after {figures['decision_step']:.1f} of {steps} time steps on average")
    print(f"page: {run / 'evaluation.html'}")


@command(
    "predict runs/first recording.aedat4",
    "predict runs/first *.bin --json",
    "predict runs/first long.raw --time-window 20000",
    "predict runs/digits image.png",
    name="predict",
    usage="Usage: htaf-snn predict [OPTIONS] RUN FILES...",
)
def predict_command(
    run: _Run,
    *files: Annotated[Path, Parameter(help="Recordings or, for a network of images, images.")],
    time_window: Annotated[
        float | None,
        Parameter(
            help="Microseconds per frame, for recordings of any length; by default as many frames as in the training."
        ),
    ] = None,
    device: _Device = "auto",
    json: Annotated[bool, Parameter(show_default=False, help="Print a line of JSON per file.")] = False,
) -> None:
    """Classify recordings or images with a trained network.

    Recordings are read as in the training: with the same columns, time_unit and place, if it had an EventFolder. Each
    frame is a time step; "left (unchanged since time step 3 of 10)" says that from the third time step on, the running
    mean of the scores favours left. A file that cannot be read is reported, and the others are classified.
    """
    if not files:
        raise ValueError("files: expected one or more, got none")
    from ..evaluation import predict

    failed = 0
    try:
        for answer in predict(run, *files, time_window=time_window, device=device, on_error="answer"):
            if "error" in answer:
                print(f"error: {answer['error']}", file=sys.stderr, flush=True)
                failed += 1
            else:
                print(json_format.dumps(answer) if json else _line(answer), flush=True)
    except ValueError as error:
        raise ValueError(as_option(str(error), {"time_window": "--time-window"})) from None
    if failed and len(files) > 1:
        raise RefusedError(f"no answer to {failed} of {len(files)} files")
    if failed:
        sys.exit(2)


def _line(answer: dict[str, Any]) -> str:
    """Return an answer in words."""
    decided = ""
    if "over_time" in answer:
        classes = answer["over_time"]
        changes = [step for step in range(1, len(classes)) if classes[step] != classes[step - 1]]
        decided = f" (unchanged since time step {max(changes, default=0) + 1} of {len(classes)})"
    return f"{answer['file']}: {answer['class']}{decided}"
