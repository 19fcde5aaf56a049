"""Benchmarks: this package's kernels beside what else computes the same, each in its own process.

htaf-snn bench lif        # neurons over a sequence
htaf-snn bench htaf       # the smooth step
htaf-snn bench scaling    # the fused neuron over the number of steps and of neurons
htaf-snn bench packed     # layers and networks in bits
"""
