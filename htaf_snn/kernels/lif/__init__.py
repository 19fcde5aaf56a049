"""Leaky integrate-and-fire neurons over a whole sequence.

The state is one number per neuron (`leaky`, as snnTorch's `Leaky`) or two (`cuba`, current and voltage, as Norse's
`LIF`). A membrane potential is compared to the threshold strictly: u > threshold is a spike.
"""
