"""`htaf-snn profile` and `htaf-snn bench`."""

from __future__ import annotations

import json as json_format
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from ._app import as_option, command
from ._options import Flag, Json

_SIZES = {"steps": 50, "batch": 128, "features": 1000}
_OPTIONS = {name: f"--{name}" for name in (*_SIZES, "repeats", "device", "peer")}


@command(
    "profile htaf snntorch.atan norse.super --plot surrogates.png",
    "profile 'htaf(alpha=0.5, beta=8)' --delta 0.5 --json",
    name="profile",
)
def profile_command(
    *surrogates: Annotated[str, Parameter(help='Such as htaf, "htaf(beta=8)", snntorch.atan, norse.super.')],
    plot: Annotated[Path | None, Parameter(help="Draw the gradients into a .png, .svg or .pdf file.")] = None,
    delta: Annotated[
        tuple[float, ...] | None,
        Parameter(help="Half-width of an interval for the mass; repeatable. [default: 0.1, 0.5 and 1]"),
    ] = None,
    json: Json = False,
) -> None:
    """Measure surrogates: peak, width at half maximum, gradient mass within ±delta and in total, tail."""
    if not surrogates:
        raise ValueError("surrogates: expected one or more, such as htaf, got none")
    from .. import profile, surrogate

    resolved: dict[str, surrogate.SurrogateLike] = {spec: surrogate.resolve(spec) for spec in surrogates}
    profiles = [profile.measure(module, spec, delta or profile.DELTAS) for spec, module in resolved.items()]
    if plot is not None:
        profile.plot(resolved, plot)
    print(json_format.dumps([p.as_dict() for p in profiles], allow_nan=False) if json else profile.table(profiles))


@command(
    "bench neurons --steps 128",
    "bench lif",
    "bench scaling --steps 200",
    "bench packed",
    "bench lif --steps 128 --device cuda --json > results.json",
    name="bench",
)
def bench_command(
    what: Annotated[
        Literal["neurons", "lif", "htaf", "scaling", "packed"],
        Parameter(
            help="neurons: every neuron beside its library's own loop; lif: LIF neurons of all libraries; htaf: the "
            "smooth HTAF function; scaling: hnn.Leaky over sizes; packed: layers and networks with packed bits."
        ),
    ],
    *,
    steps: Annotated[int | None, Parameter(help="Time steps; for all but packed. [default: 50]")] = None,
    batch: Annotated[int | None, Parameter(help="Sequences per batch; for all but packed. [default: 128]")] = None,
    features: Annotated[int | None, Parameter(help="Neurons; for all but packed. [default: 1000]")] = None,
    repeats: Annotated[int, Parameter(help="Timed repetitions.")] = 20,
    device: Annotated[Literal["cpu", "cuda"], Parameter(help="Where to time.")] = "cpu",
    peer: Annotated[
        tuple[str, ...],
        Flag,
        Parameter(
            help="Implementation to time, by its name in the table; for neurons, lif and htaf; repeatable. By default "
            "all."
        ),
    ] = (),
    json: Annotated[bool, Flag, Parameter(help="Print JSON, with versions and hardware.")] = False,
) -> None:
    """Time this package's kernels beside other libraries', each in its own process, after checking their results.

    neurons, lif, htaf and scaling: forward and backward pass of a float32 tensor (steps, batch, features), medians in
    ms; bytes saved for backward per element; our kernels' memory bandwidth as a fraction of a large copy's. Libraries
    that are not installed are listed as such; install them with `pip install ".[bench]"`.

    packed: forward passes of layers and networks with packed bits beside floating point; inputs are packed where they
    would be inside a network.
    """
    sizes = {"steps": steps, "batch": batch, "features": features}
    given = {name: value for name, value in sizes.items() if value is not None}
    try:
        report, table = _timed(what, given, peer, device, repeats)
    except ValueError as error:
        raise ValueError(as_option(str(error), _OPTIONS)) from None
    print(json_format.dumps(report, indent=2) if json else table(report))


def _timed(
    what: str, sizes: dict[str, int], peer: tuple[str, ...], device: str, repeats: int
) -> tuple[Any, Callable[[Any], str]]:
    """Return the report of a benchmark, and what makes a table of it."""
    if what == "packed" and sizes:
        raise ValueError(f"{next(iter(sizes))}: expected none for packed, whose sizes are fixed; leave it out")
    if peer and what in ("scaling", "packed"):
        raise ValueError(f"peer: expected none for {what}; leave it out")
    from ..bench import packed, sequences

    problem = sequences.Problem(**_SIZES | sizes, device=device, repeats=repeats)
    if what == "packed":
        return packed.run(device, repeats), packed.table
    if what == "scaling":
        return sequences.scaling(problem), sequences.scaling_table
    known = sequences.BENCHMARKS[what]
    unknown = set(peer) - set(known)
    if unknown:
        raise ValueError(f"peer: expected one of {'; '.join(known)}, got {', '.join(sorted(unknown))}")
    report = sequences.run(problem, list(peer) or list(known))
    if what == "neurons" and not peer:
        report["pairs"] = sequences.pairs(report)
        return report, sequences.pairs_table
    return report, sequences.table
