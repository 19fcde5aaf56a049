"""Products of packed bits."""

from __future__ import annotations

import math
from numbers import Integral
from typing import NamedTuple

import torch
from torch import Tensor

from .._checks import check_floating, describe, is_readable
from ..kernels import _dispatch
from ..kernels.binary_conv2d.windows import windows
from ..kernels.binary_linear import autograd as bit_operators
from ..kernels.binary_linear import reference as bit_reference
from ..kernels.heaviside_linear.autograd import heaviside_affine, heaviside_product

# Sums of this many weights -1 and +1, or of their products with levels up to 255, fit into int32.
_MOST_WEIGHTS, _MOST_LEVELS = 2**30, (2**31 - 1) // 255


class BinaryWeight(NamedTuple):
    """Binary weights as the kernels take them, from `pack_weight`.

    Attributes:
        words: int64 of shape (K, 64 * ceil(O / 64)), transposed: K words for each of O outputs.
        ones: int32 of shape (O,), the number of weights of each output that are +1.
        tap_sums: int32 of shape (taps, O), the sum of the weights at each tap of the window; one tap if linear.
        size: weights per output.
        window: a convolution's window, (kH, kW); None if linear.

    Example:
        >>> weight = pack_weight(torch.ones(10, 100))
        >>> weight.words.shape, weight.ones.shape, weight.size, weight.window
        (torch.Size([2, 64]), torch.Size([10]), 100, None)
    """

    words: Tensor
    ones: Tensor
    tap_sums: Tensor
    size: int
    window: tuple[int, int] | None


def pack_bits(x: Tensor, backend: str = "auto") -> Tensor:
    """Pack the bits of x > 0 into 64-bit words along the last dimension.

    Args:
        x: floating-point, integer or boolean tensor of shape (…, n); the bit of a NaN is 0.
        backend: "auto", "torch", "numba" (CPU) or "triton" (GPU), see `backends`.

    Returns:
        int64 words of shape (…, ceil(n / 64)); bit k of word j is element 64 j + k, and bits beyond n are 0.

    Raises:
        TypeError: if x is not a tensor of real numbers.
        ValueError: if it has no dimension, or the backend is unknown or cannot compute on its device.
        RuntimeError: if the backend is not available.

    Example:
        >>> pack_bits(torch.tensor([1.0, -1.0, 0.0, 2.0]))
        tensor([9])
    """
    if not isinstance(x, Tensor) or x.is_complex():
        raise TypeError(f"x: expected a tensor of numbers, got {describe(x)}")
    if not x.ndim:
        raise ValueError(f"x: expected at least one dimension, got {describe(x)}")
    return bit_operators.pack_bits(x, _dispatch.choose(backend, x.device, torch.float32))


def unpack_bits(words: Tensor, size: int) -> Tensor:
    """Return the bits of words one by one; the inverse of `pack_bits`.

    Args:
        words: int64 of shape (…, K), from `pack_bits`.
        size: bits to return per row, 0 to 64 * K.

    Returns:
        Boolean tensor of shape (…, size).

    Raises:
        TypeError: if words are not int64.
        ValueError: if they hold fewer bits.

    Example:
        >>> unpack_bits(torch.tensor([9]), 4)
        tensor([ True, False, False,  True])
    """
    _check_words("words", words)
    if not 0 <= size <= 64 * words.shape[-1]:
        raise ValueError(f"size: expected 0 to {64 * words.shape[-1]}, the bits in words, got {size}")
    return bit_reference.unpack(words, size).bool()


def pack_weight(weight: Tensor) -> BinaryWeight:
    """Pack a weight as the kernels take it: +1 where it is greater than 0, otherwise -1.

    Args:
        weight: floating-point, of shape (O, n), or (O, C, kH, kW) for a convolution.

    Returns:
        A `BinaryWeight` on the weight's device.

    Raises:
        TypeError: if it is not a floating-point tensor.
        ValueError: if it has another shape, a NaN, or more than 2**30 weights per output.

    Example:
        >>> pack_weight(torch.tensor([[1.0, -1.0, 0.0]])).ones
        tensor([1], dtype=torch.int32)
    """
    check_floating("weight", weight)
    if weight.ndim not in (2, 4):
        raise ValueError(f"weight: expected the shape (O, n) or (O, C, kH, kW), got {describe(weight)}")
    if weight.isnan().any():
        raise ValueError("weight: expected numbers, got NaN")
    if math.prod(weight.shape[1:]) > _MOST_WEIGHTS:
        raise ValueError(f"weight: expected at most {_MOST_WEIGHTS} weights per output, got {describe(weight)}")
    window = (weight.shape[2], weight.shape[3]) if weight.ndim == 4 else None
    taps = weight.detach().reshape(*weight.shape[:2], math.prod(weight.shape[2:])).movedim(1, -1)  # (O, taps, n)
    words = bit_operators.transposed(bit_reference.pack(taps).flatten(1))
    ones = (taps > 0).sum((1, 2), dtype=torch.int32)
    sums = torch.where(taps > 0, 1, -1).sum(2, dtype=torch.int32).T.contiguous()
    return BinaryWeight(words, ones, sums, taps[0].numel(), window)


def _check_words(name: str, words: Tensor) -> None:
    if not isinstance(words, Tensor) or words.dtype != torch.int64 or not words.ndim:
        raise TypeError(f"{name}: expected int64 words of `pack_bits`, got {describe(words)}")


def _holds(condition: Tensor) -> bool:
    """Return whether a condition on values holds; False where they cannot be read: compiled, or captured in a graph."""
    if not is_readable(condition):
        return False
    try:
        return bool(condition)
    except RuntimeError:
        return False


def _check_size(words: Tensor, size: int) -> None:
    """Raise ValueError if a bit beyond the first `size` of a row is set: then the row has more elements."""
    _check_words("words", words)
    if size % 64 and words.shape[-1] == -(-size // 64) and _holds((words[..., -1] >> (size % 64)).any()):
        raise ValueError(f"words: expected {size} elements per row for the weight, got bits beyond them")


def _check_bits(words: Tensor, weight: BinaryWeight, levels: tuple[int, int], thresholds: Tensor | None) -> None:
    _check_words("words", words)
    taps = len(weight.tap_sums)
    if words.shape[-1] * taps != len(weight.words):
        raise ValueError(f"words: expected {len(weight.words) // taps} per row for the weight, got {describe(words)}")
    if tuple(levels) not in ((-1, 1), (0, 1)):
        raise ValueError(f"levels: expected (-1, 1) or (0, 1), got {levels!r}")
    if thresholds is not None and (thresholds.dtype != torch.int32 or thresholds.shape != weight.ones.shape):
        raise ValueError(f"thresholds: expected int32 of shape {tuple(weight.ones.shape)}, got {describe(thresholds)}")


def binary_linear(
    words: Tensor,
    weight: BinaryWeight,
    *,
    levels: tuple[int, int] = (-1, 1),
    thresholds: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Multiply packed bits by binary weights, by counting the bits that differ.

    Args:
        words: int64 of shape (…, ceil(n / 64)), from `pack_bits`.
        weight: from `pack_weight`.
        levels: the values of a 0 and a 1, (-1, 1) or (0, 1).
        thresholds: int32 of shape (O,), or None.
        backend: as in `pack_bits`.

    Returns:
        The sums, int32 (…, O), each from -n to n; with thresholds the bits of sums > thresholds, as int64 words
        (…, ceil(O / 64)).

    Raises:
        TypeError: if words are not int64.
        ValueError: if an argument has another shape or value, or as `pack_bits`.
        RuntimeError: if the backend is not available.

    Example:
        >>> x, w = torch.tensor([[1.0, -1.0, 1.0]]), torch.tensor([[1.0, 1.0, 1.0], [-1.0, 1.0, 1.0]])
        >>> binary_linear(pack_bits(x), pack_weight(w))
        tensor([[ 1, -1]], dtype=torch.int32)
        >>> binary_linear(pack_bits(x), pack_weight(w), levels=(0, 1))
        tensor([[2, 0]], dtype=torch.int32)
    """
    _check_size(words, weight.size)
    return linear_of_bits(words, weight, levels, thresholds, backend)


def linear_of_bits(
    words: Tensor, weight: BinaryWeight, levels: tuple[int, int], thresholds: Tensor | None, backend: str = "auto"
) -> Tensor:
    """Compute `binary_linear` without checking the words for bits beyond their elements."""
    _check_bits(words, weight, levels, thresholds)
    if weight.window is not None:
        raise ValueError("weight: expected a linear layer's, got a convolution's")
    backend = _dispatch.choose(backend, words.device, torch.float32)
    # Sum = size - 2 * differing for bits of -1 and 1, (number of weights +1) - differing for bits of 0 and 1.
    offset, factor = (weight.ones, 1) if levels[0] == 0 else (torch.full_like(weight.ones, weight.size), 2)
    rows = words.flatten(0, -2) if words.ndim > 1 else words[None]
    if thresholds is None:
        sums = bit_operators.product(rows, weight.words, offset, factor, backend)
    else:
        sums = bit_operators.product_bits(rows, weight.words, offset, factor, thresholds, backend)
    return sums.view(*words.shape[:-1], sums.shape[1])


def level_linear(levels: Tensor, weight: BinaryWeight, backend: str = "auto") -> Tensor:
    """Multiply 8-bit levels, such as pixels, by binary weights.

    Args:
        levels: uint8 of shape (…, n).
        weight: from `pack_weight`, of shape (O, n).
        backend: as in `pack_bits`.

    Returns:
        The sums, int32 (…, O), each from -255 n to 255 n.

    Raises:
        TypeError: if levels are not uint8.
        ValueError: if the weight is a convolution's or has another n, if n is above 8 421 504, beyond which sums may
            overflow int32, or as `pack_bits`.
        RuntimeError: if the backend is not available.

    Example:
        >>> weight = pack_weight(torch.tensor([[1.0, -1.0, 1.0]]))
        >>> level_linear(torch.tensor([[255, 5, 10]], dtype=torch.uint8), weight)
        tensor([[260]], dtype=torch.int32)
    """
    if not isinstance(levels, Tensor) or levels.dtype != torch.uint8:
        raise TypeError(f"levels: expected uint8, got {describe(levels)}")
    if weight.window is not None or not levels.ndim or levels.shape[-1] != weight.size:
        raise ValueError(
            f"levels: expected (…, {weight.size}) for the weight of a linear layer, got {describe(levels)}"
        )
    if weight.size > _MOST_LEVELS:
        raise ValueError(f"levels: expected at most {_MOST_LEVELS} per row, for sums in int32, got {weight.size}")
    rows = levels.flatten(0, -2) if levels.ndim > 1 else levels[None]
    backend = _dispatch.choose(backend, levels.device, torch.float32)
    sums = bit_operators.level_product(rows, weight.words, weight.ones, backend)
    return sums.view(*levels.shape[:-1], sums.shape[1])


def binary_conv2d(
    words: Tensor,
    weight: BinaryWeight,
    *,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    levels: tuple[int, int] = (-1, 1),
    thresholds: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Convolve packed bits with binary weights; padding adds zeros, whatever the levels are.

    Args:
        words: int64 of shape (B, H, W, ceil(C / 64)), packed along the channels.
        weight: from `pack_weight`, of shape (O, C, kH, kW).
        stride: for rows and columns.
        padding: for rows and columns.
        dilation: for rows and columns.
        levels: as in `binary_linear`.
        thresholds: as in `binary_linear`.
        backend: as in `pack_bits`.

    Returns:
        The sums, int32 (B, H', W', O), H' and W' as in `torch.nn.Conv2d`; with thresholds, int64 words
        (B, H', W', ceil(O / 64)).

    Raises:
        TypeError, ValueError, RuntimeError: as `binary_linear`; ValueError also if the weight is a linear layer's, or
            if stride, padding or dilation is not two integers.

    Example:
        >>> words = pack_bits(torch.ones(1, 4, 4, 8))
        >>> binary_conv2d(words, pack_weight(torch.ones(2, 8, 3, 3)), padding=(1, 1))[0, 0, :, 0]
        tensor([32, 48, 48, 32], dtype=torch.int32)
    """
    taps = len(weight.tap_sums)
    _check_size(words, weight.size // taps)
    for name, value, least in (("stride", stride, 1), ("padding", padding, 0), ("dilation", dilation, 1)):
        valid = isinstance(value, (tuple, list)) and len(value) == 2
        if not valid or not all(isinstance(number, Integral) and number >= least for number in value):
            raise ValueError(f"{name}: expected two integers >= {least}, for rows and columns, got {value!r}")
    return conv2d_of_bits(words, weight, stride, padding, dilation, levels, thresholds, backend)


def conv2d_of_bits(
    words: Tensor,
    weight: BinaryWeight,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    levels: tuple[int, int],
    thresholds: Tensor | None,
    backend: str = "auto",
) -> Tensor:
    """Compute `binary_conv2d` without checking the words for bits beyond their channels."""
    _check_bits(words, weight, levels, thresholds)
    if weight.window is None or words.ndim != 4:
        raise ValueError(f"words: expected (B, H, W, K) and a convolution's weight, got {describe(words)}")
    where = (weight.window, stride, padding, dilation)
    under = windows(words, *where)
    linear_weight = weight._replace(window=None, tap_sums=weight.tap_sums.sum(0, keepdim=True, dtype=torch.int32))
    if levels[0] == 0 or not any(padding):
        return linear_of_bits(under, linear_weight, levels, thresholds, backend)
    # Outside the image the bits are 0, which counts as -1: correct for it.
    inside = windows(torch.ones_like(words[:1, ..., :1]), *where)
    sums = linear_of_bits(under, linear_weight, levels, None, backend) + _outside(inside, weight.tap_sums)
    return sums if thresholds is None else pack_bits(sums > thresholds, backend)


def _outside(inside: Tensor, tap_sums: Tensor) -> Tensor:
    """Return for each position, int32 (1, H', W', O), the sum of the weights that lie outside the image."""
    return ((1 - inside).double() @ tap_sums.double()).to(torch.int32)


def heaviside_linear(words: Tensor, weight: Tensor, backend: str = "auto") -> Tensor:
    """Sum the integer weights whose bits are set.

    Args:
        words: int64 of shape (…, ceil(n / 64)), from `pack_bits`.
        weight: int8, int16 or int32 of shape (n, O), whose magnitudes add up to less than 2**31 per output.
        backend: as in `pack_bits`.

    Returns:
        int32 of shape (…, O).

    Raises:
        TypeError: if words are not int64.
        ValueError: if the weight has another dtype, shape or magnitude, or as `pack_bits`.
        RuntimeError: if the backend is not available.

    Example:
        >>> heaviside_linear(pack_bits(torch.tensor([1.0, 0.0, 1.0])), torch.tensor([[1], [10], [100]]).int())
        tensor([101], dtype=torch.int32)
    """
    _check_integers(words, weight)
    _check_size(words, len(weight))
    # The largest magnitude is quick to find and nearly always small enough.
    is_large = weight.numel() and _holds(torch.stack(weight.aminmax()).long().abs().max() * len(weight) >= 2**31)
    if is_large and _holds((weight.long().abs().sum(0) >= 2**31).any()):
        raise ValueError("weight: expected magnitudes that add up to less than 2**31 per output, got larger ones")
    return heaviside_sums(words, weight, backend)


def _check_integers(words: Tensor, weight: Tensor) -> None:
    _check_words("words", words)
    is_integer = weight.dtype in (torch.int8, torch.int16, torch.int32)
    if not is_integer or weight.ndim != 2 or -(-weight.shape[0] // 64) != words.shape[-1]:
        raise ValueError(
            f"weight: expected int32, int16 or int8 of shape (n, O) for {describe(words)}, got {describe(weight)}"
        )


def heaviside_sums(words: Tensor, weight: Tensor, backend: str = "auto") -> Tensor:
    """Compute `heaviside_linear` without checking for bits beyond the elements and for overflow."""
    _check_integers(words, weight)
    rows = words.flatten(0, -2) if words.ndim > 1 else words[None]
    sums = heaviside_product(rows, weight, _dispatch.choose(backend, words.device, torch.float32))
    return sums.view(*words.shape[:-1], sums.shape[1])


def heaviside_values(words: Tensor, weight: Tensor, factor: Tensor, bias: Tensor) -> Tensor:
    """Return the sums of `heaviside_sums` as float32, times a factor (O,) plus a bias (O,)."""
    _check_integers(words, weight)
    rows = words.flatten(0, -2) if words.ndim > 1 else words[None]
    values = heaviside_affine(rows, weight, factor, bias, _dispatch.choose("auto", words.device, torch.float32))
    return values.view(*words.shape[:-1], values.shape[1])
