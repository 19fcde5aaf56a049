"""The neurons for the CPU, compiled by Numba: one pass over time each way, for blocks that stay in the cache.

Arrays of currents are (T, N) and contiguous, parameters and states (N,), all of one dtype. A row is one block at one
time step. Each loop over a row writes one array: with more, the compiler cannot check at run time that the arrays
do not overlap, and does not vectorise. Nothing is contracted to fused multiply-adds, which would round differently
from the reference.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ...surrogate.formula import between
from ..numba_cpu import as_bits, as_float, bound, compiled, empty, inlined, run
from .saving import narrowed

_RESETS = {"subtract": 0, "zero": 1, "none": 2}
_SUBTRACT, _ZERO = _RESETS["subtract"], _RESETS["zero"]
_BLOCK = 2048
_between = inlined(between)


def _to_be_set(*arguments):
    """Stand for a function that `_specialised` puts in its place."""


primitive = derivative = row_to_fill = save_row = saved_row = _to_be_set


@inlined
def _copy(out, a):
    for j in range(out.size):
        out[j] = a[j]


@inlined
def _add(out, a):
    for j in range(out.size):
        out[j] += a[j]


@inlined
def _add_product(out, a, b):
    for j in range(out.size):
        out[j] += a[j] * b[j]


@inlined
def _given(row, scratch):
    return row


@inlined
def _scratch(row, scratch):
    return scratch


@inlined
def _nothing_to_save(row, u, threshold):
    pass


@inlined
def _save_as_bfloat16(row, u, threshold):
    """Round to nearest even, but never across the threshold: the backward pass resets by what is saved."""
    for j in range(u.size):
        bits = as_bits(u[j])
        rounded = (bits + np.int32(0x7FFF) + ((bits >> np.int32(16)) & np.int32(1))) >> np.int32(16)
        rounded = rounded if u[j] == u[j] else np.int32(0x7FC0)
        value = as_float(rounded << np.int32(16))
        # The neighbour on the other side of zero has the other sign bit.
        away, towards = rounded + np.int32(1), rounded - np.int32(1)
        up = np.int32(1) if value == 0 else (away if value > 0 else towards)
        down = np.int32(-0x7FFF) if value == 0 else (towards if value > 0 else away)
        fired = u[j] > threshold[j]
        neighbour = up if fired else down
        row[j] = np.uint16(rounded if (value > threshold[j]) == fired else neighbour)


@inlined
def _from_bfloat16(row, scratch):
    for j in range(scratch.size):
        scratch[j] = as_float(np.int32(row[j]) << np.int32(16))
    return scratch


_AS_IT_IS = {"row_to_fill": _given, "save_row": _nothing_to_save, "saved_row": _given}
_AS_BFLOAT16 = {"row_to_fill": _scratch, "save_row": _save_as_bfloat16, "saved_row": _from_bfloat16}


@inlined
def _step(out, v, threshold):
    for j in range(out.size):
        out[j] = v[j] > threshold[j]


@inlined
def _integrate(u, beta, v, current, r, threshold, reset):
    one = u.dtype.type(1)
    if reset == _SUBTRACT:
        for j in range(u.size):
            u[j] = (beta[j] * v[j] + current[j]) - r[j] * threshold[j]
    elif reset == _ZERO:
        for j in range(u.size):
            u[j] = beta[j] * ((one - r[j]) * v[j]) + current[j]
    else:
        for j in range(u.size):
            u[j] = beta[j] * v[j] + current[j]


@inlined
def _reset_at_once(v, u, s, r, threshold, reset):
    if reset == _SUBTRACT:
        for j in range(v.size):
            v[j] = u[j] - (s[j] - r[j]) * threshold[j]
    elif reset == _ZERO:
        for j in range(v.size):
            v[j] = u[j] - (s[j] - r[j]) * u[j]
    else:
        _copy(v, u)


@inlined
def _less_what_the_reset_takes(out, grad_spikes, mu, u, threshold, reset):
    if reset == _SUBTRACT:
        for j in range(out.size):
            out[j] = grad_spikes[j] - mu[j] * threshold[j]
    elif reset == _ZERO:
        for j in range(out.size):
            out[j] = grad_spikes[j] - mu[j] * u[j]
    else:
        _copy(out, grad_spikes)


@inlined
def _into_potential(out, mu, slope, direct, s, r, reset, delay):
    if delay or reset != _ZERO:
        for j in range(out.size):
            out[j] = mu[j] + slope[j] * direct[j]
    else:
        for j in range(out.size):
            out[j] = mu[j] - mu[j] * (s[j] - r[j]) + slope[j] * direct[j]


@inlined
def _to_previous(mu, beta, grad_u, r, reset):
    one = mu.dtype.type(1)
    if reset == _ZERO:
        for j in range(mu.size):
            mu[j] = beta[j] * (one - r[j]) * grad_u[j]
    else:
        for j in range(mu.size):
            mu[j] = beta[j] * grad_u[j]


@inlined
def _add_parameter_gradients(grad_beta, grad_threshold, grad_u, mu, slope, direct, v, s, r, reset, delay):
    one = v.dtype.type(1)
    if reset == _ZERO:
        for j in range(v.size):
            grad_beta[j] += grad_u[j] * (one - r[j]) * v[j]
    else:
        _add_product(grad_beta, grad_u, v)
    for j in range(v.size):
        grad_threshold[j] -= slope[j] * direct[j]
    if reset == _SUBTRACT:
        for j in range(v.size):
            grad_threshold[j] -= grad_u[j] * r[j]
        if not delay:
            for j in range(v.size):
                grad_threshold[j] -= mu[j] * (s[j] - r[j])


@inlined
def _soften(s, u, threshold, hardness, values, primitive):
    """Blend spikes with the smooth step; `hardness` and what is left to 1 are rounded each, as in the reference."""
    hard, smooth = hardness
    for j in range(s.size):
        s[j] = _between(primitive(u[j] - threshold[j], *values), s[j], smooth, hard)


def _leaky_forward_kernel(
    start, stop, x, beta, threshold, v0, hardness, values, reset, delay, spikes, trace, potentials, last
):
    for a in range(start, stop, _BLOCK):
        b = min(a + _BLOCK, stop)
        beta_, threshold_, v = beta[a:b], threshold[a:b], v0[a:b].copy()
        r, scratch = np.empty_like(v), np.empty_like(v)
        for t in range(x.shape[0]):
            u, s = row_to_fill(trace[t, a:b], scratch), spikes[t, a:b]
            _step(r, v, threshold_)
            _integrate(u, beta_, v, x[t, a:b], r, threshold_, reset)
            _step(s, u, threshold_)
            if delay:
                _copy(v, u)
            else:
                _reset_at_once(v, u, s, r, threshold_, reset)
            if potentials.size:
                _copy(potentials[t, a:b], v)
            if hardness[0] < 1:
                _soften(s, u, threshold_, hardness, values, primitive)
            save_row(trace[t, a:b], u, threshold_)
        last[a:b] = v


@inlined
def _potentials_after_reset(states, v0, trace, a, b, threshold, reset, saved_row):
    """Fill states (T + 1, block) with the potential before each step, from those before the resets."""
    r, s, scratch = np.empty_like(v0), np.empty_like(v0), np.empty_like(v0)
    _copy(states[0], v0)
    for t in range(trace.shape[0]):
        u = saved_row(trace[t, a:b], scratch)
        _step(r, states[t], threshold)
        _step(s, u, threshold)
        _reset_at_once(states[t + 1], u, s, r, threshold, reset)


def _leaky_backward_kernel(
    start, stop, grad_spikes, grad_potentials, grad_last, trace, slopes, beta, threshold, v0, values, reset, delay,
    learns, grad_x, grad_steps, grad_beta, grad_threshold, grad_v0,
):  # fmt: skip
    steps = trace.shape[0]
    for a in range(start, stop, _BLOCK):
        b = min(a + _BLOCK, stop)
        beta_, threshold_, mu = beta[a:b], threshold[a:b], grad_last[a:b].copy()
        r, s, computed, reduced = np.empty_like(mu), np.empty_like(mu), np.empty_like(mu), np.empty_like(mu)
        scratch, scratch_before = np.empty_like(mu), np.empty_like(mu)
        states = np.empty((1 if delay else steps + 1, b - a), mu.dtype)
        if not delay:
            _potentials_after_reset(states, v0[a:b], trace, a, b, threshold_, reset, saved_row)
        for t in range(steps - 1, -1, -1):
            u, grad_u = saved_row(trace[t, a:b], scratch), grad_x[t, a:b]
            v = v0[a:b] if delay else states[t]
            if delay and t:
                v = saved_row(trace[t - 1, a:b], scratch_before)
            if not delay or reset == _ZERO or learns:
                _step(r, v, threshold_)
                _step(s, u, threshold_)
            slope = slopes[t, a:b] if slopes.size else computed
            if not slopes.size:
                for j in range(b - a):
                    slope[j] = derivative(u[j] - threshold_[j], *values)
            if grad_potentials.size:
                _add(mu, grad_potentials[t, a:b])
            # The gradient of the step's output: as a spike, and as what its own reset takes.
            direct = grad_spikes[t, a:b] if delay else reduced
            if not delay:
                _less_what_the_reset_takes(direct, grad_spikes[t, a:b], mu, u, threshold_, reset)
            _into_potential(grad_u, mu, slope, direct, s, r, reset, delay)
            if grad_steps.size:
                _copy(grad_steps[t, a:b], direct)
            if learns:
                _add_parameter_gradients(
                    grad_beta[a:b], grad_threshold[a:b], grad_u, mu, slope, direct, v, s, r, reset, delay
                )
            _to_previous(mu, beta_, grad_u, r, reset)
        grad_v0[a:b] = mu


@inlined
def _after_reset(out, u, s, v_reset):
    one = u.dtype.type(1)
    for j in range(out.size):
        out[j] = (one - s[j]) * u[j] + s[j] * v_reset[j]


def _cuba_forward_kernel(start, stop, x, parameters, v0, i0, hardness, values, spikes, trace, last_v, last_i):
    for a in range(start, stop, _BLOCK):
        b = min(a + _BLOCK, stop)
        mem, syn, leak = parameters[0, a:b], parameters[1, a:b], parameters[2, a:b]
        threshold, v_reset = parameters[3, a:b], parameters[4, a:b]
        v, i = v0[a:b].copy(), i0[a:b].copy()
        scratch = np.empty_like(v)
        for t in range(x.shape[0]):
            u, s = row_to_fill(trace[t, a:b], scratch), spikes[t, a:b]
            _add(i, x[t, a:b])
            for j in range(b - a):
                u[j] = v[j] + mem[j] * ((leak[j] - v[j]) + i[j])
            for j in range(b - a):
                i[j] = i[j] + syn[j] * i[j]
            _step(s, u, threshold)
            _after_reset(v, u, s, v_reset)
            if hardness[0] < 1:
                _soften(s, u, threshold, hardness, values, primitive)
            save_row(trace[t, a:b], u, threshold)
        last_v[a:b] = v
        last_i[a:b] = i


@inlined
def _currents(out, i0, x, syn):
    """Fill out (T, block) with the current of each step, its input included."""
    i = i0.copy()
    for t in range(x.shape[0]):
        _add(i, x[t])
        _copy(out[t], i)
        for j in range(i.size):
            i[j] = i[j] + syn[j] * i[j]


@inlined
def _add_cuba_parameter_gradients(grads, a, b, grad_u, iota, mu, slope, direct, leak, mem, v, current, s):
    grad_mem, grad_syn, grad_leak = grads[0, a:b], grads[1, a:b], grads[2, a:b]
    grad_threshold, grad_reset = grads[3, a:b], grads[4, a:b]
    for j in range(v.size):
        grad_mem[j] += grad_u[j] * ((leak[j] - v[j]) + current[j])
    _add_product(grad_syn, iota, current)
    _add_product(grad_leak, grad_u, mem)
    for j in range(v.size):
        grad_threshold[j] -= slope[j] * direct[j]
    _add_product(grad_reset, mu, s)


def _cuba_backward_kernel(
    start, stop, grad_spikes, grad_v, grad_i, trace, slopes, x, parameters, v0, i0, values, detach, learns,
    grad_x, grad_steps, grad_parameters, grad_v0, grad_i0,
):  # fmt: skip
    steps = trace.shape[0]
    for a in range(start, stop, _BLOCK):
        b = min(a + _BLOCK, stop)
        mem, syn, leak = parameters[0, a:b], parameters[1, a:b], parameters[2, a:b]
        threshold, v_reset = parameters[3, a:b], parameters[4, a:b]
        mu, iota = grad_v[a:b].copy(), grad_i[a:b].copy()
        one = mu.dtype.type(1)
        s, v, slope = np.empty_like(mu), np.empty_like(mu), np.empty_like(mu)
        reset_too, grad_u, scratch = np.empty_like(mu), np.empty_like(mu), np.empty_like(mu)
        currents = np.empty((steps if learns else 0, b - a), mu.dtype)
        if learns:
            _currents(currents, i0[a:b], x[:, a:b], syn)
        for t in range(steps - 1, -1, -1):
            u = saved_row(trace[t, a:b], scratch)
            _step(s, u, threshold)
            if slopes.size:
                _copy(slope, slopes[t, a:b])
            else:
                for j in range(b - a):
                    slope[j] = derivative(u[j] - threshold[j], *values)
            of_spikes = grad_spikes[t, a:b]
            direct = of_spikes if detach else reset_too
            if not detach:
                for j in range(b - a):
                    direct[j] = of_spikes[j] + mu[j] * (v_reset[j] - u[j])
            for j in range(b - a):
                grad_u[j] = mu[j] * (one - s[j]) + slope[j] * direct[j]
            if grad_steps.size:
                _copy(grad_steps[t, a:b], direct)
            if learns:
                if t:
                    before = saved_row(trace[t - 1, a:b], scratch)
                    _step(v, before, threshold)
                    _after_reset(v, before, v, v_reset)
                else:
                    _copy(v, v0[a:b])
                _add_cuba_parameter_gradients(
                    grad_parameters, a, b, grad_u, iota, mu, slope, direct, leak, mem, v, currents[t], s
                )
            later, iota = iota, grad_x[t, a:b]
            for j in range(b - a):
                iota[j] = later[j] + later[j] * syn[j] + mem[j] * grad_u[j]
            for j in range(b - a):
                mu[j] = grad_u[j] * (one - mem[j])
        grad_v0[a:b] = mu
        grad_i0[a:b] = iota


def _array(tensor: Tensor | None, like: Tensor) -> np.ndarray:
    """Return a contiguous array in the dtype of `like`; for None an empty one of two dimensions.

    NumPy copies: torch's threads keep spinning for a while after a parallel copy, and slow ours down.
    """
    if tensor is None:
        return np.empty((0, 0), like.numpy().dtype)
    return np.ascontiguousarray(tensor.detach().to(like.dtype).numpy())


def _zeros(shape: tuple[int, ...], like: Tensor) -> Tensor:
    return torch.from_numpy(np.zeros(shape, like.numpy().dtype))


@inlined
def _unused(x, *values):
    return x


def _hardness(hardness: float, like: Tensor) -> tuple[np.floating, np.floating]:
    number = like.numpy().dtype.type
    return number(hardness), number(1.0 - hardness)


def _specialised(kernel, name: str, function, values: Sequence[float], like: Tensor, saved: torch.dtype):
    """Return the compiled kernel with a formula's function in place of `name`, and the values for it.

    Without a function the kernel is the same for all formulas, and compiled once.
    """
    rows = _AS_BFLOAT16 if saved == torch.bfloat16 else _AS_IT_IS
    if function is None:
        return compiled(kernel, **{name: _unused}, **rows), ()
    number = like.numpy().dtype.type
    return compiled(kernel, **{name: bound(function, like.dtype)}, **rows), tuple(number(value) for value in values)


def _trace_array(trace: Tensor, like: Tensor) -> np.ndarray:
    return trace.view(torch.uint16).numpy() if trace.dtype == torch.bfloat16 else _array(trace, like)


def _saved_in_kernel(save_dtype: torch.dtype, like: Tensor) -> bool:
    return save_dtype == torch.bfloat16 and like.dtype == torch.float32


# The work of a neuron and step, in operations, which `run` weighs against the cost of a thread.
_FORWARD_WORK, _BACKWARD_WORK = 4, 16


def leaky_forward(x, beta, threshold, v0, formula, values, reset, delay, keep, save_dtype):
    """See `autograd.leaky`."""
    steps, size = x.shape
    trace = empty(x.shape, save_dtype if _saved_in_kernel(save_dtype, v0) else v0.dtype)
    spikes, last = empty(x.shape, v0.dtype), torch.empty_like(v0)
    potentials = empty(x.shape if keep else (0, 0), v0.dtype)
    kernel, numbers = _specialised(
        _leaky_forward_kernel, "primitive", formula.primitive if values[0] < 1 else None, values[1:], v0, trace.dtype
    )
    run(
        kernel, size, steps * _FORWARD_WORK,
        _array(x, v0), _array(beta, v0), _array(threshold, v0), _array(v0, v0), _hardness(values[0], v0), numbers,
        _RESETS[reset], delay, spikes.numpy(), _trace_array(trace, v0), potentials.numpy(), last.numpy(),
    )  # fmt: skip
    return spikes.to(x.dtype), narrowed(trace, threshold, save_dtype), potentials, last


def leaky_backward(
    grad_spikes, grad_potentials, grad_last, trace, slopes, beta, threshold, v0, formula, values, reset, delay, learns,
    keep_steps,
):  # fmt: skip
    """See `autograd.leaky_backward`."""
    steps, size = trace.shape
    grad_x, grad_v0 = empty(trace.shape, v0.dtype), torch.empty_like(v0)
    grad_steps = empty(trace.shape if keep_steps else (0, 0), v0.dtype)
    grad_beta, grad_threshold = _zeros(v0.shape, v0), _zeros(v0.shape, v0)
    kernel, numbers = _specialised(
        _leaky_backward_kernel,
        "derivative",
        formula.derivative if slopes is None else None,
        values[1:],
        v0,
        trace.dtype,
    )
    run(
        kernel, size, steps * _BACKWARD_WORK,
        _array(grad_spikes, v0), _array(grad_potentials, v0), _array(grad_last, v0), _trace_array(trace, v0),
        _array(slopes, v0), _array(beta, v0), _array(threshold, v0), _array(v0, v0), numbers,
        _RESETS[reset], delay, learns, grad_x.numpy(), grad_steps.numpy(), grad_beta.numpy(), grad_threshold.numpy(),
        grad_v0.numpy(),
    )  # fmt: skip
    return grad_x, grad_steps, grad_beta, grad_threshold, grad_v0


def cuba_forward(x, parameters, v0, i0, formula, values, save_dtype):
    """See `autograd.cuba`."""
    steps, size = x.shape
    trace = empty(x.shape, save_dtype if _saved_in_kernel(save_dtype, v0) else v0.dtype)
    spikes = empty(x.shape, v0.dtype)
    last_v, last_i = torch.empty_like(v0), torch.empty_like(v0)
    kernel, numbers = _specialised(
        _cuba_forward_kernel, "primitive", formula.primitive if values[0] < 1 else None, values[1:], v0, trace.dtype
    )
    run(
        kernel, size, steps * _FORWARD_WORK,
        _array(x, v0), _array(parameters, v0), _array(v0, v0), _array(i0, v0), _hardness(values[0], v0), numbers,
        spikes.numpy(), _trace_array(trace, v0), last_v.numpy(), last_i.numpy(),
    )  # fmt: skip
    return spikes.to(x.dtype), narrowed(trace, parameters[3], save_dtype), last_v, last_i


def cuba_backward(
    grad_spikes, grad_v, grad_i, trace, slopes, x, parameters, v0, i0, formula, values, detach, learns, keep_steps
):
    """See `autograd.cuba_backward`."""
    steps, size = trace.shape
    grad_x, grad_v0, grad_i0 = empty(trace.shape, v0.dtype), torch.empty_like(v0), torch.empty_like(v0)
    grad_parameters = _zeros(parameters.shape, v0)
    grad_steps = empty(trace.shape if keep_steps else (0, 0), v0.dtype)
    kernel, numbers = _specialised(
        _cuba_backward_kernel, "derivative", formula.derivative if slopes is None else None, values[1:], v0, trace.dtype
    )
    run(
        kernel, size, steps * _BACKWARD_WORK,
        _array(grad_spikes, v0), _array(grad_v, v0), _array(grad_i, v0), _trace_array(trace, v0), _array(slopes, v0),
        _array(x if learns else None, v0), _array(parameters, v0), _array(v0, v0), _array(i0, v0),
        numbers, detach, learns, grad_x.numpy(), grad_steps.numpy(), grad_parameters.numpy(),
        grad_v0.numpy(), grad_i0.numpy(),
    )  # fmt: skip
    return grad_x, grad_steps, grad_parameters, grad_v0, grad_i0
