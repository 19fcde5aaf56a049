"""Runs of a packed network's steps in one call, one sample through all of them."""
