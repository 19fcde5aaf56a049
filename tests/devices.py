"""Where each backend is tested: Triton's kernels on a GPU, and without one in Triton's interpreter."""

import pytest
import torch

DEVICES = {"torch": "cpu", "numba": "cpu", "triton": "cuda" if torch.cuda.is_available() else "cpu"}

# For the fixture `backend`. A kernel for the CPU takes seconds to compile.
QUICKLY = ["numba's text", pytest.param("numba", marks=pytest.mark.thorough), "triton"]
