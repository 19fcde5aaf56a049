"""Options shared by commands."""

from typing import Annotated

import typer

Download = Annotated[bool, typer.Option("--download", help="Fetch the data set if it is missing.")]
Resize = Annotated[
    str | None,
    typer.Option(help="Resize images in files to this side, or to HEIGHT,WIDTH; default: all have one size."),
]
WeightSurrogate = Annotated[str, typer.Option(help="Surrogate of the bnn's weights; or magnitude_aware.")]
Epochs = Annotated[int, typer.Option(help="Passes over the training data.")]
BatchSize = Annotated[int, typer.Option(help="Samples per batch.")]
NTimeBins = Annotated[int, typer.Option(help="Frames, that is time steps, per recording.")]
Lr = Annotated[float, typer.Option(help="Learning rate of Adam.")]
Schedule = Annotated[str, typer.Option(help="Schedule of the learning rate: constant or cosine.")]
Norm = Annotated[str, typer.Option(help="batch (BatchNorm), none, or auto: batch for images, none for spikes.")]
Identity = Annotated[float, typer.Option(help="Multiple of the identity in the weights at the start.")]
Anneal = Annotated[
    str,
    typer.Option(
        help="none; hardness: trained from smooth (0) to hard (1); alpha: smooth, and steeper up to --alpha-end."
    ),
]
AlphaEnd = Annotated[float, typer.Option(help="Final alpha, with --anneal alpha.")]
Precision = Annotated[str, typer.Option(help="float32, or bfloat16 for mixed precision.")]
Compiled = Annotated[bool, typer.Option("--compiled", help="Train through torch.compile.")]
Seed = Annotated[int, typer.Option(help="Seed for weights, order and split.")]
TrainFraction = Annotated[float, typer.Option(help="Fraction of the training data left after validation that is used.")]
ValFraction = Annotated[float, typer.Option(help="Fraction of the training data held out for validation.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the run in --out, exactly as if never interrupted.")]
ResultAsJson = Annotated[bool, typer.Option("--json", help="Print the contents of result.json as one line of JSON.")]
