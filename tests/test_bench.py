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
    missing = bench.Peer(torch.nn.Identity, "no-such-package")
    monkeypatch.setitem(bench.PEERS, "missing", missing)
    monkeypatch.setitem(bench.BENCHMARKS["lif"], "missing", missing)
    peers = ["hnn.Leaky", "snn.Leaky, stepped", "SpikingJelly, CuPy", "missing"]
    result = run("lif", *SMALL, "--json", *(part for peer in peers for part in ("--peer", peer)))
    report = json.loads(result.stdout)
    ours, stepped, cupy, missing = report["results"]
    assert ours["both_ms"]["median"] > 0 and 4 <= ours["saved_bytes"] <= 5
    assert "of_copy_bandwidth" in ours and "of_copy_bandwidth" not in stepped
    assert stepped["version"] and stepped["saved_bytes"] > ours["saved_bytes"]
    assert "not_measured" in cupy and "pip install no-such-package" in missing["not_measured"]
    assert {"python", "torch", "threads", "gpu"} <= report["machine"].keys() and report["copy_gb_s"] > 0
    shown = bench.table(report)
    assert "hnn.Leaky" in shown and "not installed; pip install no-such-package" in shown


def test_the_smooth_step_saves_nothing_but_its_input():
    report = json.loads(run("htaf", *SMALL, "--json").stdout)
    assert [result["saved_bytes"] for result in report["results"]] == [0.0, 8.0]


def test_scaling_fits_lines():
    report = json.loads(run("scaling", "--steps", "20", "--batch", "1", "--features", "10", "--json").stdout)
    assert report["steps"]["sizes"] == [2, 4, 8, 12, 16, 20] and report["features"]["sizes"] == [1, 2, 4, 6, 8, 10]
    line = bench._line([1, 2, 3], [5.0, 7.0, 9.0])
    assert (line["ms_each"], line["ms_start"], line["r_squared"]) == pytest.approx((2.0, 3.0, 1.0))
    assert "R2" in bench.scaling_table(report)


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
        (["mlp"], ["what", "lif", "scaling", "mlp"]),
        (["htaf", "--peer", "hnn.Leaky"], ["peer", "smooth", "hnn.Leaky"]),
        (["scaling", "--peer", "hnn.Leaky"], ["peer", "none"]),
        (["scaling", "--steps", "5"], ["steps", "10", "5"]),
        (["lif", "--device", "tpu"], ["device", "cuda", "tpu"]),
    ],
)
def test_bad_input(arguments, words):
    result = run(*arguments)
    assert result.exit_code == 2 and all(word in result.stderr for word in words), result.stderr
