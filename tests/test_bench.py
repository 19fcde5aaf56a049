"""The benchmark's machinery; no time is asserted."""

import json

import pytest
import torch
from typer.testing import CliRunner

from htaf_snn import bench
from htaf_snn.cli import app

SMALL = ["--steps", "3", "--batch", "2", "--features", "5", "--repeats", "1"]


def run(*arguments):
    return CliRunner().invoke(app, ["bench", *arguments], catch_exceptions=False)


def test_the_command_measures_and_says_what_it_could_not(monkeypatch):
    monkeypatch.setitem(bench.PEERS, "missing", bench.Peer(torch.nn.Identity, "no-such-package"))
    peers = ["hnn.Leaky", "snn.Leaky, stepped", "SpikingJelly, CuPy", "missing"]
    result = run("lif", *SMALL, "--json", *(part for peer in peers for part in ("--peer", peer)))
    report = json.loads(result.stdout)
    ours, stepped, cupy, missing = report["results"]
    assert ours["both_ms"]["median"] > 0 and 4 <= ours["saved_bytes"] <= 5
    assert stepped["version"] and stepped["saved_bytes"] > ours["saved_bytes"]
    assert "not_measured" in cupy and "pip install no-such-package" in missing["not_measured"]
    assert {"python", "torch", "threads", "gpu"} <= report["machine"].keys() and report["copy_gb_s"] > 0
    shown = bench.table(report)
    assert "hnn.Leaky" in shown and "not installed; pip install no-such-package" in shown


def test_a_wrong_kernel_is_not_timed(monkeypatch):
    from htaf_snn.kernels.lif import numba_cpu

    right = numba_cpu.leaky_backward

    def wrong(*arguments):
        grad_x, *rest = right(*arguments)
        return grad_x * 1.01, *rest

    monkeypatch.setattr(numba_cpu, "leaky_backward", wrong)
    with pytest.raises(RuntimeError, match="lif differs from its reference"):
        bench.measure("hnn.Leaky", bench.Problem(2, 2, 2, repeats=1))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["lif", "--steps", "0"], ["steps", "0"]),
        (["lif", "--peer", "x"], ["peer", "hnn.Leaky", "x"]),
        (["mlp"], ["what", "lif", "mlp"]),
        (["lif", "--device", "tpu"], ["device", "cuda", "tpu"]),
    ],
)
def test_bad_input(arguments, words):
    result = run(*arguments)
    assert result.exit_code == 2 and all(word in result.stderr for word in words), result.stderr
