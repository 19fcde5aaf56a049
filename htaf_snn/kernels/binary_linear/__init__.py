"""Products of bits with binary weights, by counting the bits that differ."""
