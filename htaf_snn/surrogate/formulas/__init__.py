"""One file per surrogate: its mathematics and its class.

`primitive(x, *parameters)` is a smooth stand-in for the step x > 0 and `derivative(x, *parameters)` its exact derivative;
`parameter_gradients(x, *parameters)`, where there is one, gives the derivatives of the primitive with respect to the
parameters. Parameters are numbers or tensors. A new surrogate is such a file and its line in `htaf_snn.surrogate`.
"""
