"""The elementwise step x > 0 with a surrogate gradient, and the smooth step."""
