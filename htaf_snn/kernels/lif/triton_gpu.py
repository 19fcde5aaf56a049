"""The neurons for the GPU, in Triton: a program for each block of neurons, with the state in registers.

Currents are (T, N) in any floating-point dtype, parameters and states (N,) in float32. The number of steps is an
ordinary argument. See `numba_cpu.py` for the same arithmetic.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ...surrogate.formula import between
from ..triton_gpu import bound, call, launch, padded
from .saving import narrowed

_RESETS = {"subtract": 0, "zero": 1, "none": 2}
_between = bound(between)


@triton.jit
def _reset_at_once(u, s, r, threshold, RESET: tl.constexpr):
    v = u
    if RESET == 0:
        v = u - (s - r) * threshold
    elif RESET == 1:
        v = u - (s - r) * u
    return v


@triton.jit
def _leaky_forward_kernel(
    x, beta, threshold, v0, spikes, trace, potentials, last, hard, soft, p0, p1, p2, steps, size,
    primitive: tl.constexpr, COUNT: tl.constexpr, RESET: tl.constexpr, DELAY: tl.constexpr, SMOOTH: tl.constexpr,
    KEEP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = n < size
    beta_ = tl.load(beta + n, mask=inside, other=0.0)
    threshold_ = tl.load(threshold + n, mask=inside, other=0.0)
    v = tl.load(v0 + n, mask=inside, other=0.0)
    at = n
    for _ in range(steps):
        current = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
        r = (v > threshold_).to(tl.float32)
        if RESET == 0:
            u = (beta_ * v + current) - r * threshold_
        elif RESET == 1:
            u = beta_ * ((1.0 - r) * v) + current
        else:
            u = beta_ * v + current
        s = (u > threshold_).to(tl.float32)
        v = u
        if not DELAY:
            v = _reset_at_once(u, s, r, threshold_, RESET)
        if SMOOTH:
            s = _between(call(primitive, u - threshold_, p0, p1, p2, COUNT), s, soft, hard)
        tl.store(trace + at, u, mask=inside)
        tl.store(spikes + at, s.to(spikes.dtype.element_ty), mask=inside)
        if KEEP:
            tl.store(potentials + at, v, mask=inside)
        at += size
    tl.store(last + n, v, mask=inside)


@triton.jit
def _leaky_backward_kernel(
    grad_spikes, grad_potentials, grad_last, trace, slopes, beta, threshold, v0, states, grad_x, grad_steps, grad_beta,
    grad_threshold, grad_v0, p0, p1, p2, steps, size,
    derivative: tl.constexpr, COUNT: tl.constexpr, RESET: tl.constexpr, DELAY: tl.constexpr, LEARNS: tl.constexpr,
    HAS_SLOPES: tl.constexpr, HAS_POTENTIALS: tl.constexpr, KEEP_STEPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = n < size
    beta_ = tl.load(beta + n, mask=inside, other=0.0)
    threshold_ = tl.load(threshold + n, mask=inside, other=0.0)
    start = tl.load(v0 + n, mask=inside, other=0.0)
    if not DELAY:
        # The potentials after the resets follow from those before them, but only forwards.
        v = start
        at = n
        for _ in range(steps):
            tl.store(states + at, v, mask=inside)
            u = tl.load(trace + at, mask=inside, other=0.0).to(tl.float32)
            r = (v > threshold_).to(tl.float32)
            v = _reset_at_once(u, (u > threshold_).to(tl.float32), r, threshold_, RESET)
            at += size
        tl.debug_barrier()
    mu = tl.load(grad_last + n, mask=inside, other=0.0)
    sum_beta = tl.zeros_like(mu)
    sum_threshold = tl.zeros_like(mu)
    at = n + (steps - 1) * size
    for _ in range(steps):
        u = tl.load(trace + at, mask=inside, other=0.0).to(tl.float32)
        if DELAY:
            v = tl.load(trace + at - size, mask=inside & (at >= size), other=0.0).to(tl.float32)
            v = tl.where(at >= size, v, start)
        else:
            v = tl.load(states + at, mask=inside, other=0.0)
        r = (v > threshold_).to(tl.float32)
        s = (u > threshold_).to(tl.float32)
        if HAS_SLOPES:
            slope = tl.load(slopes + at, mask=inside, other=0.0)
        else:
            slope = call(derivative, u - threshold_, p0, p1, p2, COUNT)
        if HAS_POTENTIALS:
            mu += tl.load(grad_potentials + at, mask=inside, other=0.0)
        direct = tl.load(grad_spikes + at, mask=inside, other=0.0).to(tl.float32)
        through = mu
        if not DELAY:
            if RESET == 0:
                direct -= mu * threshold_
            elif RESET == 1:
                direct -= mu * u
                through = mu - mu * (s - r)
        grad_u = through + slope * direct
        tl.store(grad_x + at, grad_u, mask=inside)
        if KEEP_STEPS:
            tl.store(grad_steps + at, direct, mask=inside)
        kept = beta_
        if RESET == 1:
            kept = beta_ * (1.0 - r)
        if LEARNS:
            sum_threshold -= slope * direct
            if RESET == 0:
                sum_threshold -= grad_u * r
                if not DELAY:
                    sum_threshold -= mu * (s - r)
            if RESET == 1:
                sum_beta += grad_u * (1.0 - r) * v
            else:
                sum_beta += grad_u * v
        mu = kept * grad_u
        at -= size
    tl.store(grad_v0 + n, mu, mask=inside)
    tl.store(grad_beta + n, sum_beta, mask=inside)
    tl.store(grad_threshold + n, sum_threshold, mask=inside)


@triton.jit
def _cuba_forward_kernel(
    x, mem, syn, leak, threshold, v_reset, v0, i0, spikes, trace, last_v, last_i, hard, soft, p0, p1, p2, steps, size,
    primitive: tl.constexpr, COUNT: tl.constexpr, SMOOTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = n < size
    mem_ = tl.load(mem + n, mask=inside, other=0.0)
    syn_ = tl.load(syn + n, mask=inside, other=0.0)
    leak_ = tl.load(leak + n, mask=inside, other=0.0)
    threshold_ = tl.load(threshold + n, mask=inside, other=0.0)
    v_reset_ = tl.load(v_reset + n, mask=inside, other=0.0)
    v = tl.load(v0 + n, mask=inside, other=0.0)
    i = tl.load(i0 + n, mask=inside, other=0.0)
    at = n
    for _ in range(steps):
        i = i + tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
        u = v + mem_ * ((leak_ - v) + i)
        i = i + syn_ * i
        s = (u > threshold_).to(tl.float32)
        v = (1.0 - s) * u + s * v_reset_
        if SMOOTH:
            s = _between(call(primitive, u - threshold_, p0, p1, p2, COUNT), s, soft, hard)
        tl.store(trace + at, u, mask=inside)
        tl.store(spikes + at, s.to(spikes.dtype.element_ty), mask=inside)
        at += size
    tl.store(last_v + n, v, mask=inside)
    tl.store(last_i + n, i, mask=inside)


@triton.jit
def _cuba_backward_kernel(
    grad_spikes, grad_v, grad_i, trace, slopes, x, mem, syn, leak, threshold, v_reset, v0, i0, currents, grad_x,
    grad_steps, grad_parameters, grad_v0, grad_i0, p0, p1, p2, steps, size,
    derivative: tl.constexpr, COUNT: tl.constexpr, DETACH: tl.constexpr, LEARNS: tl.constexpr,
    HAS_SLOPES: tl.constexpr, KEEP_STEPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = n < size
    mem_ = tl.load(mem + n, mask=inside, other=0.0)
    syn_ = tl.load(syn + n, mask=inside, other=0.0)
    leak_ = tl.load(leak + n, mask=inside, other=0.0)
    threshold_ = tl.load(threshold + n, mask=inside, other=0.0)
    v_reset_ = tl.load(v_reset + n, mask=inside, other=0.0)
    start = tl.load(v0 + n, mask=inside, other=0.0)
    if LEARNS:
        i = tl.load(i0 + n, mask=inside, other=0.0)
        at = n
        for _ in range(steps):
            i = i + tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
            tl.store(currents + at, i, mask=inside)
            i = i + syn_ * i
            at += size
        tl.debug_barrier()
    mu = tl.load(grad_v + n, mask=inside, other=0.0)
    iota = tl.load(grad_i + n, mask=inside, other=0.0)
    sum_mem = tl.zeros_like(mu)
    sum_syn = tl.zeros_like(mu)
    sum_leak = tl.zeros_like(mu)
    sum_threshold = tl.zeros_like(mu)
    sum_reset = tl.zeros_like(mu)
    at = n + (steps - 1) * size
    for _ in range(steps):
        u = tl.load(trace + at, mask=inside, other=0.0).to(tl.float32)
        s = (u > threshold_).to(tl.float32)
        if HAS_SLOPES:
            slope = tl.load(slopes + at, mask=inside, other=0.0)
        else:
            slope = call(derivative, u - threshold_, p0, p1, p2, COUNT)
        direct = tl.load(grad_spikes + at, mask=inside, other=0.0).to(tl.float32)
        if not DETACH:
            direct += mu * (v_reset_ - u)
        grad_u = mu * (1.0 - s) + slope * direct
        if KEEP_STEPS:
            tl.store(grad_steps + at, direct, mask=inside)
        if LEARNS:
            before = tl.load(trace + at - size, mask=inside & (at >= size), other=0.0).to(tl.float32)
            fired = (before > threshold_).to(tl.float32)
            v = tl.where(at >= size, (1.0 - fired) * before + fired * v_reset_, start)
            current = tl.load(currents + at, mask=inside, other=0.0)
            sum_mem += grad_u * ((leak_ - v) + current)
            sum_syn += iota * current
            sum_leak += grad_u * mem_
            sum_threshold -= slope * direct
            sum_reset += mu * s
        iota = iota + iota * syn_ + mem_ * grad_u
        tl.store(grad_x + at, iota, mask=inside)
        mu = grad_u * (1.0 - mem_)
        at -= size
    tl.store(grad_v0 + n, mu, mask=inside)
    tl.store(grad_i0 + n, iota, mask=inside)
    if LEARNS:
        rows = tl.cast(size, tl.int64)
        tl.store(grad_parameters + n, sum_mem, mask=inside)
        tl.store(grad_parameters + rows + n, sum_syn, mask=inside)
        tl.store(grad_parameters + 2 * rows + n, sum_leak, mask=inside)
        tl.store(grad_parameters + 3 * rows + n, sum_threshold, mask=inside)
        tl.store(grad_parameters + 4 * rows + n, sum_reset, mask=inside)


def leaky_forward(x, beta, threshold, v0, formula, values, reset, delay, keep, save_dtype):
    """See `autograd.leaky`."""
    x, (steps, size), (hardness, *numbers) = x.contiguous(), x.shape, values
    trace, last = torch.empty_like(x, dtype=torch.float32), torch.empty_like(v0)
    spikes = torch.empty_like(x)
    potentials = torch.empty_like(trace) if keep else trace.new_empty(0, 0)
    launch(
        _leaky_forward_kernel, size, x, beta.contiguous(), threshold.contiguous(), v0.contiguous(), spikes, trace,
        potentials, last, hardness, 1.0 - hardness, *padded(numbers), steps,
        primitive=bound(formula.primitive), COUNT=len(numbers), RESET=_RESETS[reset], DELAY=delay, SMOOTH=hardness < 1,
        KEEP=keep,
    )  # fmt: skip
    return spikes, narrowed(trace, threshold, save_dtype), potentials, last


def leaky_backward(
    grad_spikes, grad_potentials, grad_last, trace, slopes, beta, threshold, v0, formula, values, reset, delay, learns,
    keep_steps,
):  # fmt: skip
    """See `autograd.leaky_backward`."""
    steps, size = trace.shape
    none = v0.new_empty(0, 0)
    grad_x, grad_v0 = torch.empty_like(trace, dtype=torch.float32), torch.empty_like(v0)
    grad_beta, grad_threshold = torch.empty_like(v0), torch.empty_like(v0)
    grad_steps = torch.empty_like(grad_x) if keep_steps else none
    states = none if delay else torch.empty_like(grad_x)
    launch(
        _leaky_backward_kernel, size, grad_spikes.contiguous(),
        none if grad_potentials is None else grad_potentials.contiguous(), grad_last.contiguous(), trace,
        none if slopes is None else slopes.contiguous(), beta.contiguous(), threshold.contiguous(), v0.contiguous(),
        states, grad_x, grad_steps, grad_beta, grad_threshold, grad_v0, *padded(values[1:]), steps,
        derivative=bound(formula.derivative), COUNT=len(values) - 1, RESET=_RESETS[reset], DELAY=delay, LEARNS=learns,
        HAS_SLOPES=slopes is not None, HAS_POTENTIALS=grad_potentials is not None, KEEP_STEPS=keep_steps,
    )  # fmt: skip
    return grad_x, grad_steps, grad_beta, grad_threshold, grad_v0


def cuba_forward(x, parameters, v0, i0, formula, values, save_dtype):
    """See `autograd.cuba`."""
    x, (steps, size), (hardness, *numbers) = x.contiguous(), x.shape, values
    spikes, trace = torch.empty_like(x), torch.empty_like(x, dtype=torch.float32)
    last_v, last_i = torch.empty_like(v0), torch.empty_like(v0)
    launch(
        _cuba_forward_kernel, size, x, *parameters.contiguous(), v0.contiguous(), i0.contiguous(), spikes, trace,
        last_v, last_i, hardness, 1.0 - hardness, *padded(numbers), steps,
        primitive=bound(formula.primitive), COUNT=len(numbers), SMOOTH=hardness < 1,
    )  # fmt: skip
    return spikes, narrowed(trace, parameters[3], save_dtype), last_v, last_i


def cuba_backward(
    grad_spikes, grad_v, grad_i, trace, slopes, x, parameters, v0, i0, formula, values, detach, learns, keep_steps
):
    """See `autograd.cuba_backward`."""
    steps, size = trace.shape
    none = v0.new_empty(0, 0)
    grad_x = torch.empty_like(trace, dtype=torch.float32)
    grad_steps, currents = (
        torch.empty_like(grad_x) if keep_steps else none,
        torch.empty_like(grad_x) if learns else none,
    )
    grad_parameters, grad_v0, grad_i0 = torch.zeros_like(parameters), torch.empty_like(v0), torch.empty_like(i0)
    launch(
        _cuba_backward_kernel, size, grad_spikes.contiguous(), grad_v.contiguous(), grad_i.contiguous(), trace,
        none if slopes is None else slopes.contiguous(), x.contiguous() if learns else none, *parameters.contiguous(),
        v0.contiguous(), i0.contiguous(), currents, grad_x, grad_steps, grad_parameters, grad_v0, grad_i0,
        *padded(values[1:]), steps, derivative=bound(formula.derivative), COUNT=len(values) - 1, DETACH=detach,
        LEARNS=learns, HAS_SLOPES=slopes is not None, KEEP_STEPS=keep_steps,
    )  # fmt: skip
    return grad_x, grad_steps, grad_parameters, grad_v0, grad_i0
