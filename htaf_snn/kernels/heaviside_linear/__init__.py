"""Products of bits with integer weights: sums of the rows whose bits are set."""
