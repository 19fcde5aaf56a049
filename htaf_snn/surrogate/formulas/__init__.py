"""One file per surrogate: its mathematics and its class.

`primitive(x, *parameters)` is a smooth stand-in for the step x > 0, `derivative(x, *parameters)` its exact derivative.
The optional `parameter_gradients(x, *parameters)` returns the derivatives of the primitive with respect to the
parameters, which are numbers or tensors. A new surrogate is one such file and its line in `htaf_snn.surrogate`.
"""
