"""A linear layer for frames of events."""

from __future__ import annotations

from torch import Tensor, nn

from ..functional import event_linear


class EventLinear(nn.Linear):
    """`torch.nn.Linear` whose time grows with the values that are not zero, for the first layer on events.

    Args:
        in_features, out_features, bias, device, dtype: as in `torch.nn.Linear`, whose parameters it has.

    Shape:
        (…, in_features), or rows (R, in_features) in torch's CSR layout, to (…, out_features), as in
        `functional.event_linear`, whose errors it raises.

    Example:
        >>> import torch
        >>> layer = EventLinear(2312, 256)
        >>> layer(torch.zeros(25, 32, 2312)).shape
        torch.Size([25, 32, 256])
    """

    def forward(self, input: Tensor) -> Tensor:
        return event_linear(input, self.weight, self.bias)
