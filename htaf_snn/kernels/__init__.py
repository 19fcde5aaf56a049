"""One folder per operation: `reference.py` defines it in plain torch, `autograd.py` makes it differentiable."""
