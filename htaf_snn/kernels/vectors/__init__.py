"""Operations on a few numbers side by side, for kernels."""
