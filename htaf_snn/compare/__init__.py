"""Surrogates compared fairly: `matching` makes them comparable, `statistics` says what a difference is worth."""
