"""What a trained network does: its figures on a data set, and its answer to a recording or an image."""

from .figures import evaluate_run
from .predictions import predict

__all__ = ["evaluate_run", "predict"]
