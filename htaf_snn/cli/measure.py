"""`htaf-snn profile` and `htaf-snn bench`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .. import profile, surrogate
from ..bench import packed, sequences
from ._app import app, one_line_errors


@app.command(
    name="profile",
    epilog=(
        "[bold]Examples[/bold]\n\n"
        "htaf-snn profile htaf snntorch.atan norse.super --plot surrogates.png\n\n"
        'htaf-snn profile "htaf(alpha=0.5, beta=8)" --delta 0.5 --json'
    ),
)
def profile_command(
    surrogates: Annotated[list[str], typer.Argument(help='Such as htaf, "htaf(beta=8)", snntorch.atan, norse.super.')],
    plot: Annotated[Path | None, typer.Option(help="Draw the gradients into a .png, .svg or .pdf file.")] = None,
    delta: Annotated[list[float], typer.Option(help="Half-width of an interval for the mass; repeatable.")] = list(  # noqa: B006
        profile.DELTAS
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object per surrogate.")] = False,
) -> None:
    """Measure surrogates: peak, width at half maximum, gradient mass within ±delta and in total, tail."""
    with one_line_errors():
        resolved: dict[str, surrogate.SurrogateLike] = {spec: surrogate.resolve(spec) for spec in surrogates}
        profiles = [profile.measure(module, spec, delta) for spec, module in resolved.items()]
        if plot is not None:
            profile.plot(resolved, plot)
    if as_json:
        typer.echo(json.dumps([p.as_dict() for p in profiles], allow_nan=False))
    else:
        typer.echo(profile.table(profiles))


@app.command(
    name="bench",
    help=(
        "Time this package's kernels beside other libraries', each in its own process, after checking their "
        "results.\n\n"
        "neurons, lif, htaf and scaling: forward and backward pass of a float32 tensor (steps, batch, features), "
        "medians in ms; bytes saved for backward per element; our kernels' memory bandwidth as a fraction of a large "
        "copy's. "
        'Libraries that are not installed are listed as such; install them with pip install "htaf-snn\\[bench]".\n\n'
        "packed: forward passes of layers and networks with packed bits beside floating point; inputs are packed where "
        "they would be inside a network."
    ),
    epilog=(
        "[bold]Examples[/bold]\n\n"
        "htaf-snn bench neurons --steps 128\n\n"
        "htaf-snn bench lif\n\n"
        "htaf-snn bench scaling --steps 200\n\n"
        "htaf-snn bench packed\n\n"
        "htaf-snn bench lif --steps 128 --device cuda --json > results.json"
    ),
)
def bench_command(
    context: typer.Context,
    what: Annotated[
        str,
        typer.Argument(
            help="neurons: every neuron beside its library's own loop; lif: LIF neurons of all libraries; htaf: the "
            "smooth HTAF function; scaling: hnn.Leaky over sizes; "
            "packed: layers and networks with packed bits."
        ),
    ],
    steps: Annotated[int, typer.Option(help="Time steps.")] = 50,
    batch: Annotated[int, typer.Option(help="Sequences per batch.")] = 128,
    features: Annotated[int, typer.Option(help="Neurons.")] = 1000,
    repeats: Annotated[int, typer.Option(help="Timed repetitions.")] = 20,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    peer: Annotated[list[str] | None, typer.Option(help="Implementation to time; repeatable.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with versions and hardware.")] = False,
) -> None:
    # The help is in the decorator: from a docstring Rich would keep the line breaks and read [bench] as markup.
    with one_line_errors():
        if what not in (*sequences.BENCHMARKS, "scaling", "packed"):
            raise ValueError(f"what: expected {', '.join(sequences.BENCHMARKS)}, scaling or packed, got {what!r}")
        if device not in ("cpu", "cuda"):
            raise ValueError(f"device: expected cpu or cuda, got {device!r}")
        if peer and what in ("scaling", "packed"):
            raise ValueError(f"peer: expected none for {what}")
        problem = sequences.Problem(steps, batch, features, device, repeats)
        if what == "packed":
            for name in ("steps", "batch", "features"):
                source = context.get_parameter_source(name)
                if source is not None and source.name == "COMMANDLINE":
                    raise ValueError(f"{name}: expected none for packed, whose sizes are fixed")
            report, table = packed.run(device, repeats), packed.table
        elif what == "scaling":
            report, table = sequences.scaling(problem), sequences.scaling_table
        else:
            known = sequences.BENCHMARKS[what]
            unknown = set(peer or ()) - set(known)
            if unknown:
                raise ValueError(f"peer: expected one of {'; '.join(known)}, got {', '.join(sorted(unknown))}")
            report = sequences.run(problem, peer or list(known))
            table = sequences.pairs_table if what == "neurons" and not peer else sequences.table
            if what == "neurons" and not peer:
                report["pairs"] = sequences.pairs(report)
    typer.echo(json.dumps(report, indent=2) if as_json else table(report))
