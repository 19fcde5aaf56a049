"""The table of docs/guide/binary-networks.md: which networks of `models` each export writes."""

import contextlib
import inspect
import re
from pathlib import Path

import pytest
import torch

from htaf_snn import deploy, models
from htaf_snn import nn as hnn

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("qonnx", reason="qonnx is not installed")
PAGE = Path(__file__).parents[2] / "docs" / "guide" / "binary-networks.md"
COLUMNS = ("C", "ONNX", "QONNX")


def leaky():
    return hnn.Leaky(beta=0.9)


IMAGE, FRAME = (1, 9, 9), (2, 16, 16)
MAKERS = {
    "BinaryMLP": (IMAGE, lambda: models.BinaryMLP(81, [8, 8], 3)),
    "BinaryCNN": (IMAGE, lambda: models.BinaryCNN(IMAGE, [4, 8], 3)),
    "BinaryResNet": (IMAGE, lambda: models.BinaryResNet(8, 1, 3, width=4)),
    "DeepHeavisideNet": (IMAGE, lambda: models.DeepHeavisideNet(81, [8, 8], 3)),
    "DeepHeavisideNet of convolutions": (IMAGE, lambda: models.DeepHeavisideNet(IMAGE, [4, 8], 3)),
    "ICBM": (IMAGE, lambda: models.ICBM(models.ImageEncoder(1, 4), 8, 3)),
    "ImageEncoder": (IMAGE, lambda: models.ImageEncoder(1, 4)),
    "ReLUNet": (IMAGE, lambda: models.ReLUNet(81, [8, 8], 3)),
    "ReLUNet of convolutions": (IMAGE, lambda: models.ReLUNet(IMAGE, [4, 8], 3)),
    "ReLUResNet": (IMAGE, lambda: models.ReLUResNet(8, 1, 3, width=4)),
    "PLIFNet": (FRAME, lambda: models.PLIFNet(FRAME, 3, leaky)),
    "SEWResNet": (FRAME, lambda: models.SEWResNet(18, FRAME, 3, leaky, width=4)),
    "SpikingCNN": (FRAME, lambda: models.SpikingCNN(FRAME, [4, 8], 3, leaky)),
    "SpikingMLP": (FRAME, lambda: models.SpikingMLP(512, [8, 8], 3, leaky)),
    "SpikingVGG11": ((2, 32, 32), lambda: models.SpikingVGG11((2, 32, 32), 3, leaky, n_hidden=16)),
    "Spikformer": (FRAME, lambda: models.Spikformer(FRAME, 3, leaky)),
}


def table():
    """Return the columns in which each network has a yes."""
    rows = {}
    for line in PAGE.read_text().split("| packed network of | C |")[1].split("\n\n")[0].splitlines()[2:]:
        names, *cells = (cell.strip() for cell in line.strip("| ").split("|"))
        assert {*cells} <= {"yes", "no"}, line
        written = [column for column, cell in zip(COLUMNS, cells, strict=True) if cell == "yes"]
        rows |= dict.fromkeys(re.findall(r"`(\w+)`", names), written)
    return rows


def test_the_table_has_every_network():
    networks = {name for name in models.__all__ if inspect.isclass(getattr(models, name))}
    assert {*table()} == networks - {"SpikingNet"} == {name.split()[0] for name in MAKERS}


@pytest.mark.thorough
@pytest.mark.parametrize("name", MAKERS)
def test_the_table_is_right(name, tmp_path):
    torch.manual_seed(0)
    shape, make = MAKERS[name]
    net = make().eval()
    exports = {
        "C": lambda packed: deploy.export_c(packed, tmp_path / "net.c", shape),
        "ONNX": lambda packed: deploy.export_onnx(packed, tmp_path / "net.onnx", torch.rand(4, *shape)),
        "QONNX": lambda packed: deploy.export_qonnx(packed, tmp_path / "net.onnx", shape),
    }
    written = []
    for target, export in exports.items():
        with contextlib.suppress(ValueError):
            export(deploy.pack(net))
            written.append(target)
    assert written == table()[name.split()[0]]
