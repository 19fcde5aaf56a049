"""Convolutions over packed bits: windows of words, then a product of `binary_linear` or `heaviside_linear`."""
