"""The operations, a folder each: `reference.py` defines it in plain torch, `autograd.py` registers it with torch."""
