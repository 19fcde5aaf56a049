"""Which way to compute is measured to be the quickest, and taken."""

import pytest
import torch
from torch import nn

from htaf_snn import deploy, models
from htaf_snn import nn as hnn
from htaf_snn.deploy import quickest

pytestmark = pytest.mark.usefixtures("by_programs")


@pytest.mark.parametrize(
    ("seconds", "taken"),
    [
        ((1.0, 2.0, 1.0, 2.0), [0]),
        ((1.0, 2.0, 2.0, 1.0, 1.0, 2.0), [3]),
        ((1.0, 2.0, 2.0, 1.0, 2.0, 1.0), []),
        ((2.0, 1.0), ["float32"]),
    ],
)
def test_the_faster_way_is_taken(monkeypatch, seconds, taken):
    """All in one call, or the product of levels by itself and the rest in one call, or step by step, or in float32."""
    torch.manual_seed(0)
    packed, x, calls, measured = (
        deploy.pack(models.BinaryMLP(70, [66, 65], 5).eval()),
        torch.rand(3, 70),
        [],
        iter(seconds),
    )
    assert [program.first for program in packed._programs.values()] == [0, 3]
    expected = deploy.steps.as_float(packed.values(x)[packed.output])
    for first, program in packed._programs.items():
        run = program._run
        monkeypatch.setattr(program, "_run", lambda *given, first=first, run=run: calls.append(first) or run(*given))
    by_floats = packed._by_floats
    monkeypatch.setattr(packed, "_by_floats", lambda x: calls.append("float32") or by_floats(x))
    monkeypatch.setattr(quickest, "seconds", lambda compute: next(measured))
    for _ in range(2):
        assert torch.equal(packed(x), expected)
    assert calls == taken * 2 and next(measured, None) is None  # measured once
    kept = [step._kept for step in packed.steps if isinstance(step, deploy.products.Product)]
    assert (kept != [None] * len(kept)) == (taken == ["float32"])


@pytest.mark.parametrize("shape", [(3, 1), (1, 70), (70,), (2, 5, 130), (0, 70)])
@pytest.mark.parametrize("quicker", [0, 1])
def test_levels_multiplied_as_bits_or_bytes(monkeypatch, shape, quicker):
    seconds = [float(way != quicker) for way in range(2)]
    monkeypatch.setattr(quickest, "seconds", lambda compute: seconds.pop(0))
    torch.manual_seed(0)
    levels = torch.randint(0, 256, (*shape[:-1], 2 * shape[-1]), dtype=torch.uint8)[..., ::2]
    levels[..., : shape[-1] // 2] = 255
    step = deploy.steps.BinaryProduct(torch.randn(9, shape[-1]).sign(), (-1, 1), batched=False)
    for _ in range(2):
        assert torch.equal(step(levels), (levels.long() @ step.signs().long().T).float())
        step.words_0.copy_(deploy.steps.BinaryProduct(-step.signs(), (-1, 1), batched=False).words_0)
        step.ones_0.copy_(shape[-1] - step.ones_0)
    assert len(seconds) == (0 if levels.numel() and shape[-1] > 1 else 2)  # measured where there are two ways


def test_float32_is_not_taken_where_it_is_inexact_or_unseen(monkeypatch):
    torch.manual_seed(0)
    packed, x = deploy.pack(models.BinaryMLP(70, [66, 65], 5).eval()), torch.rand(3, 70)
    expected, times = packed(x), [2.0, 1.0] * 9
    packed._quickest.chosen.clear()
    monkeypatch.setattr(quickest, "seconds", lambda compute: times.pop(0))
    monkeypatch.setattr(packed, "_by_floats", lambda x: pytest.fail("computed in float32"))
    with torch.backends.flags(fp32_precision="bf16"):
        assert torch.equal(packed(x), expected)
    seen = []
    hook = packed.steps[0].register_forward_hook(lambda *_: seen.append(1))
    assert torch.equal(packed(x), expected) and seen
    hook.remove()
    hook = torch.nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(module))
    assert torch.equal(packed(x), expected) and {*packed.steps} <= {*seen}
    hook.remove()
    monkeypatch.undo()
    step = deploy.steps.HeavisideProduct(torch.full((2, 3), 2**23, dtype=torch.int32), (0, 1), batched=False)
    assert not step._is_exact() and step.in_floats(torch.ones(1, 3)).tolist() == [[3 * 2.0**23] * 2]


def test_seconds_are_of_the_quickest_call(monkeypatch):
    monkeypatch.undo()
    calls = []
    assert 0 < quickest.seconds(lambda: calls.append(1)) < 1 and len(calls) == 1 + quickest._TRIALS


def convolutional():
    torch.manual_seed(0)
    layers = [hnn.QuantizeInput(), hnn.BinaryConv2d(3, 64, 3, padding=1), nn.BatchNorm2d(64), hnn.BinaryActivation()]
    layers += [hnn.BinaryConv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), hnn.BinaryActivation(), nn.Flatten()]
    return deploy.pack(nn.Sequential(*layers, hnn.BinaryLinear(4096, 5)).eval())


@pytest.mark.skipif(not torch.backends.nnpack.is_available(), reason="torch has no NNPACK")
def test_without_onednn_nothing_is_convolved_by_transforms(monkeypatch):
    packed, x = convolutional(), torch.rand(16, 3, 8, 8)
    expected = packed._by_bits(x)
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    assert torch.equal(packed(x), expected) and torch.equal(packed._by_bits(x), expected)
    assert not packed._quickest.chosen


def test_a_packed_network_can_be_exported_by_torch():
    packed, x = convolutional(), torch.rand(2, 3, 8, 8)
    assert torch.equal(torch.export.export(packed, (x,)).module()(x), packed(x))


def test_inference_tensors_that_change_are_read_anew():
    with torch.inference_mode():
        packed, x = convolutional(), torch.rand(2, 3, 8, 8)
        before = packed._by_floats(x)
        step = packed.steps[-1]
        step.words_0.copy_(deploy.steps.BinaryProduct(-step.signs(), (-1, 1), batched=False).words_0)
        assert torch.equal(packed._by_floats(x), -before) and before.any()


def test_a_shape_that_does_not_fit_is_told_alike(monkeypatch):
    net = nn.Sequential(nn.Linear(6, 8), hnn.BinaryActivation(), hnn.HeavisideLinear(8, 3)).eval()
    for times in ([1.0, 2.0], [2.0, 1.0]):
        packed = deploy.pack(net)
        monkeypatch.setattr(quickest, "seconds", lambda compute, times=times: times.pop(0) if times else 0.0)
        packed(torch.rand(6))
        with pytest.raises(ValueError, match=r"^x: expected \(B, 6\) at this layer, got \(5,\)"):
            packed(torch.rand(5))


def test_names_are_one_per_step():
    steps = [(step, [i]) for i, step in enumerate(convolutional().steps)]
    with pytest.raises(ValueError, match=rf"^names: expected {len(steps)} strings, one per step, got \['a'\]"):
        deploy.PackedNetwork(steps, len(steps), names=["a"])
