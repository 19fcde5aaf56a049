"""Benchmarks: this package's kernels beside alternatives that compute the same, each in its own process.

htaf-snn bench lif        # neurons over a sequence
htaf-snn bench htaf       # the smooth HTAF function
htaf-snn bench scaling    # the fused neuron over the numbers of time steps and neurons
htaf-snn bench packed     # layers and networks with packed bits
"""
