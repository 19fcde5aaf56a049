"""Convolutions over packed bits: the windows of words, then a product of `binary_linear` or `heaviside_linear`."""
