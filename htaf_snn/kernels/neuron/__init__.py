"""Neurons over a sequence: kernels with gradients from the update of one time step, see `kernels/README.md`."""
