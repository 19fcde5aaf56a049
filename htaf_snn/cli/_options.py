"""Options of several commands."""

from typing import Annotated

import typer

Download = Annotated[bool, typer.Option("--download", help="Fetch the data set if it is not there.")]
Estimator = Annotated[str, typer.Option(help="Gradient of the bnn's weights: a surrogate or magnitude_aware.")]
Epochs = Annotated[int, typer.Option(help="Passes over the training data.")]
BatchSize = Annotated[int, typer.Option(help="Samples in a batch.")]
TimeBins = Annotated[int, typer.Option(help="Frames, that is time steps, in a recording.")]
Lr = Annotated[float, typer.Option(help="Learning rate of Adam.")]
Schedule = Annotated[str, typer.Option(help="Of the learning rate: constant or cosine.")]
AlphaEnd = Annotated[
    float, typer.Option(help="What the alpha of smooth activations (bnn, dhn, concepts) is raised to.")
]
Anneal = Annotated[str, typer.Option(help="How alpha is raised: exponential, cosine or stepwise.")]
Precision = Annotated[str, typer.Option(help="float32, or bfloat16 for mixed precision.")]
Compiled = Annotated[bool, typer.Option("--compiled", help="Train through torch.compile.")]
Seed = Annotated[int, typer.Option(help="Of weights, order and data division.")]
ValFraction = Annotated[float, typer.Option(help="Part of the training data kept for validation.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the run in --out, exactly as if never interrupted.")]
ResultAsJson = Annotated[bool, typer.Option("--json", help="Print what result.json holds, as a line of JSON.")]
