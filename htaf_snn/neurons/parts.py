"""Equations that several neurons share."""


def decay(value, rate, dt):
    return value + -dt * rate * value


def reset_to(v, s, target):
    return (1 - s) * v + s * target


def reset_by(v, r, threshold, reset):
    if reset == "subtract":
        return v - r * threshold
    return v - r * v if reset == "zero" else v


def fire(u, v, threshold, spike, reset, reset_delay):
    """Return the spikes, and the potential u after its resets; v is the potential of the previous time step.

    The delayed reset has no gradient. Without `reset_delay` a spike resets in its own time step, which the delayed
    reset does not repeat, and its gradient flows through that reset.
    """
    r = spike.hard(v - threshold).detach()
    u = reset_by(u, r, threshold, reset)
    s = spike(u - threshold)
    return s, u if reset_delay else reset_by(u, s - r, threshold, reset)
