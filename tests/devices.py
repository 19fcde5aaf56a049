"""Where each backend is tested: Triton's kernels on a GPU, and without one in Triton's interpreter."""

import torch

DEVICES = {"torch": "cpu", "numba": "cpu", "triton": "cuda" if torch.cuda.is_available() else "cpu"}
