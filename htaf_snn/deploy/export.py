"""Export of networks to ONNX files, in floating point, for other runtimes."""

from __future__ import annotations

import copy
import warnings
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import nn as hnn
from .._checks import describe
from .._files import replacing
from .._packages import needs
from .network import PackedNetwork
from .packing import require_ready
from .plain import Plain

OPSET = 18
_CLOSE = 1e-5


def export_onnx(model: nn.Module, path: str | PathLike, example: Tensor) -> dict[str, float]:
    """Write a network in eval mode to an ONNX file of opset 18, and compare it with ONNX Runtime.

    Of a packed network the layers on bits are exact: products of whole numbers, stored as integers of 8 to 32 bits, and
    comparisons with whole numbers. Its layers in floating point may be rounded otherwise than torch does; then an
    activation whose input lies on its threshold may flip. Of any other network the file is in float32, with weights as
    the network uses them, -1 and +1, or rounded as in `nn.HeavisideLinear`; BatchNorm is folded into the preceding
    layer, which changes rounding: an activation whose sum lies on the threshold may flip. How often flips change the
    class is measured on the examples. The batch size is free. The file checks nothing: images outside [0, 1] are
    clamped where the network refuses them.

    Args:
        model: from `pack`; or a network in eval mode, on the CPU, in float32, that `torch.export` can trace.
        path: file to write; an existing one is replaced.
        example: inputs for the comparison, floating-point (B, …).

    Returns:
        {"opset"; "max_difference": the largest absolute difference of a score; "same_class": the fraction of examples
        with the same class, from 0 to 1}.

    Raises:
        ImportError: if onnx, onnxscript or onnxruntime is not installed.
        TypeError, ValueError: if the model is not a module, in training mode, not float32 on the CPU, has a NaN, is a
            spiking network, or cannot be exported.
        RuntimeError: if ONNX Runtime's scores differ from the model's for most examples; nothing is written.

    Example:
        >>> import tempfile
        >>> from htaf_snn import deploy, models
        >>> packed = deploy.pack(models.BinaryMLP(64, [32], 10).eval())
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export_onnx(packed, f"{folder}/net.onnx", torch.rand(2, 64))["max_difference"]
        0.0
    """
    require_ready(model)
    is_packed_over_time = isinstance(model, PackedNetwork) and model.is_over_time
    if is_packed_over_time or any(isinstance(module, hnn.NeuronLayer) for module in model.modules()):
        raise ValueError("model: expected a network of images for ONNX, got a spiking one; see export_c")
    with needs("onnx"):
        import onnxruntime
        import onnxscript  # noqa: F401
    if not isinstance(example, Tensor) or not example.is_floating_point() or not example.ndim:
        raise TypeError(f"example: expected a floating-point tensor (B, …), got {describe(example)}")
    with torch.no_grad():
        plain = Plain(model) if isinstance(model, PackedNetwork) else _with_plain_weights(model)
        expected, content = model(example), _exported(plain, example)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    scores = torch.from_numpy(session.run(None, {"x": example.numpy()})[0])
    differences = (scores - expected).abs().flatten(1).amax(1)
    if not differences.median() <= _CLOSE * expected.abs().max().clamp(min=1):
        raise RuntimeError(f"{path}: ONNX Runtime's scores differ from the model's by up to {differences.max():g}")
    with replacing(Path(path)) as temporary:
        temporary.write_bytes(content)
    same = (scores.argmax(1) == expected.argmax(1)).float().mean().item()
    return {"opset": OPSET, "max_difference": differences.max().item(), "same_class": same}


def _exported(model: nn.Module, example: Tensor) -> bytes:
    try:
        with warnings.catch_warnings():
            # The exporter warns of its own deprecations and experimental parts.
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                model, (example,), input_names=["x"], output_names=["scores"], opset_version=OPSET, dynamo=True,
                dynamic_shapes=({0: torch.export.Dim.DYNAMIC},), verbose=False,
            )  # fmt: skip
    except Exception as error:  # tracing runs the model's own code
        raise ValueError(f"model: expected a network that torch.export can trace: {error}") from error
    assert program is not None  # with dynamo=True
    return program.model_proto.SerializeToString()


def _with_plain_weights(model: nn.Module) -> nn.Module:
    """Return a copy whose layers hold the weights that they use, so that the file does not compute them."""
    model = copy.deepcopy(model)
    layers = (hnn.BinaryLinear, hnn.BinaryConv2d, hnn.HeavisideLinear, hnn.HeavisideConv2d)
    for module in model.modules():
        for name in ("output_scale", "binary_weight", "exact_weight"):
            if isinstance(module, layers) and hasattr(module, name):
                value = getattr(module, name)()
                setattr(module, name, lambda value=value: value)
    return model
