"""Linear layers on bits, one after another in one call, for small batches and small layers."""
