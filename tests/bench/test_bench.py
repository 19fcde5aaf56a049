"""The benchmark's machinery; no time is asserted."""

import json
import subprocess
import sys

import commands
import pytest
import torch
from folders import ROOT

from htaf_snn.bench import packed, sequences
from htaf_snn.cli._app import app

sys.path.append(str(ROOT))  # last, so that the installed package is tested

from benchmarks import gpu

# Large enough for the few numbers saved beside the trace not to count.
SMALL = ["--steps", "3", "--batch", "2", "--features", "20", "--repeats", "1"]


def bench(*arguments):
    return commands.run("bench", *arguments)


@pytest.mark.thorough
def test_the_command_measures_and_lists_missing_peers(monkeypatch):
    missing = sequences.Peer(torch.nn.Identity, "no-such-package")
    monkeypatch.setitem(sequences.PEERS, "missing", missing)
    monkeypatch.setitem(sequences.BENCHMARKS["lif"], "missing", missing)
    peers = ["hnn.Leaky", "snn.Leaky, stepped", "missing"]
    result = bench("lif", *SMALL, "--json", *(part for peer in peers for part in ("--peer", peer)))
    report = json.loads(result.stdout)
    ours, stepped, missing = report["results"]
    assert ours["both_ms"]["median"] > 0 and 4 <= ours["saved_bytes"] <= 5
    assert "of_copy_bandwidth" in ours and "of_copy_bandwidth" not in stepped
    assert stepped["version"] and 3.9 <= stepped["saved_bytes"] <= 5
    assert "pip install no-such-package" in missing["not_measured"]
    assert {"python", "torch", "threads", "gpu"} <= report["machine"].keys() and report["copy_gb_s"] > 0
    shown = sequences.table(report)
    assert "hnn.Leaky" in shown and "not installed; pip install no-such-package" in shown


@pytest.mark.thorough
def test_pairs_of_neurons_are_compared(monkeypatch):
    names = ["hnn.LIFAdEx", "norse.LIFAdEx", "own neuron", "own neuron, loop in torch"]
    monkeypatch.setitem(sequences.BENCHMARKS, "neurons", {name: sequences.PEERS[name] for name in names})
    result = bench("neurons", *SMALL, "--json")
    report = json.loads(result.stdout)
    assert [pair["neuron"] for pair in report["pairs"]] == names[::2]
    assert all(pair["ratio"] == pytest.approx(pair["peer_ms"] / pair["ms"], abs=0.01) for pair in report["pairs"])
    assert "own neuron, loop in torch" in sequences.pairs_table(report)


@pytest.mark.thorough
def test_the_smooth_function_saves_only_its_input():
    report = json.loads(bench("htaf", *SMALL, "--json").stdout)
    assert [result["saved_bytes"] for result in report["results"]] == [0.0, 8.0]


def test_scaling_fits_lines():
    report = json.loads(bench("scaling", "--steps", "20", "--batch", "1", "--features", "10", "--json").stdout)
    assert report["steps"]["sizes"] == [2, 4, 8, 12, 16, 20] and report["features"]["sizes"] == [1, 2, 4, 6, 8, 10]
    line = sequences._line([1, 2, 3], [5.0, 7.0, 9.0])
    assert (line["ms_each"], line["ms_start"], line["r_squared"]) == pytest.approx((2.0, 3.0, 1.0))
    assert "R2" in sequences.scaling_table(report)


def test_a_wrong_kernel_is_not_timed(monkeypatch):
    from htaf_snn.kernels.neuron import numba_cpu

    right = numba_cpu.backward

    def wrong(*arguments):
        grad_x, *rest = right(*arguments)
        return grad_x * 1.01, *rest

    monkeypatch.setattr(numba_cpu, "backward", wrong)
    with pytest.raises(RuntimeError, match="leaky: output differs from the reference"):
        sequences.measure("hnn.Leaky", sequences.Problem(2, 2, 2, repeats=1))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["lif", "--steps", "0"], ["steps", "0"]),
        (["lif", "--peer", "x"], ["peer", "hnn.Leaky", "x"]),
        (["mlp"], ["WHAT", "lif", "scaling", "mlp"]),
        (["htaf", "--peer", "hnn.Leaky"], ["peer", "smooth", "hnn.Leaky"]),
        (["scaling", "--peer", "hnn.Leaky"], ["peer", "none"]),
        (["scaling", "--steps", "5"], ["steps", "10", "5"]),
        (["lif", "--device", "tpu"], ["device", "cuda", "tpu"]),
    ],
)
def test_bad_input(arguments, words):
    result = bench(*arguments)
    assert result.exit_code == 2 and all(word in result.stderr for word in words), result.stderr


@pytest.fixture
def small_problems(monkeypatch):
    monkeypatch.setattr(packed, "FEATURES", 70)
    monkeypatch.setattr(packed, "CHANNELS", 3)
    monkeypatch.setattr(packed, "SMALL", [6, 5])
    monkeypatch.setattr(packed, "HIDDEN", [9, 8])
    monkeypatch.setattr(packed, "WIDE", [7, 7, 7])
    shapes = {"linear": (70,), "conv": (3, 5, 4)}  # of a network, its image's
    small = {name: (make, shapes.get(name, shape)) for name, (make, shape) in packed.PROBLEMS.items()}
    monkeypatch.setattr(packed, "PROBLEMS", small)


@pytest.mark.usefixtures("small_problems")
def test_packed_peers_compute_the_same_and_are_timed():
    def own(name):
        return "twin" in name or "plain" in name

    for problem, (make, shape) in packed.PROBLEMS.items():
        peers = make("cpu")  # of which two have weights of their own
        x = packed._signs(2, *shape)
        results = {name: peer.run(peer.prepare(x)).float() for name, peer in peers.items() if not own(name)}
        for name, result in results.items():
            torch.testing.assert_close(result, results["packed"], rtol=1e-2, atol=1e-2, msg=f"{problem}, {name}")
        result = packed.measure(problem, "packed", 1, "cpu", 2)
        assert result["ms"]["p20"] <= result["ms"]["median"] <= result["ms"]["p80"]
        assert result["weight_bytes"] > 0


@pytest.mark.usefixtures("small_problems")
def test_a_wrong_packed_kernel_is_not_timed(monkeypatch):
    right = packed.functional.binary_linear
    monkeypatch.setattr(packed.functional, "binary_linear", lambda *args, **options: right(*args, **options) + 2)
    with pytest.raises(RuntimeError, match="linear, packed: output differs from the reference"):
        packed.measure("linear", "packed", 1, "cpu", 1)


@pytest.mark.thorough
def test_packed_report_has_a_ratio_to_the_float_peer(monkeypatch):
    def result(module, problem, peer, batch, device, repeats):
        if "mlp" in problem:
            return {"not_measured": "out of memory"}
        median = 2.0 if peer == "packed" else 6.0
        return {"ms": {"median": median, "p20": 1.0, "p80": 7.0}, "weight_bytes": 1000}

    monkeypatch.setattr(packed.common, "in_own_process", result)
    monkeypatch.setattr(packed, "FEATURES", 64)
    report = packed.run(progress=False)
    ratios = {(r["problem"], r["batch"], r["peer"]): r.get("speedup") for r in report["results"]}
    assert ratios["linear", 1, "packed"] == ratios["conv", 256, "packed"] == 3.0
    assert ratios["mlp", 1, "packed"] is None
    assert "not measured:" in packed.table(report) and "3.0" in packed.table(report)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["packed", "--batch", "3"], "error: --batch: expected none for packed, whose sizes are fixed; leave it out"),
        (["packed", "--steps", "5"], "error: --steps: expected none for packed"),
        (["packed", "--peer", "float32"], "error: --peer: expected none for packed; leave it out"),
        (["scaling", "--peer", "hnn.LIF"], "error: --peer: expected none for scaling"),
        (["scaling", "--features", "5"], "error: --features: expected at least 10 for a decade, got 5"),
        (["lif", "--repeats", "0"], "error: --repeats: expected at least 1, got 0"),
        (["lif", "--peer", "x"], "error: --peer: expected one of"),
        (["speed"], 'Invalid value "speed" for WHAT. Choose from: "neurons", "lif"'),
    ],
)
def test_bad_arguments_are_one_line_with_the_option(arguments, words):
    result = bench(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr


def test_the_help_says_which_benchmarks_take_an_option():
    shown = " ".join(bench("--help").stdout.replace("│", " ").split())
    assert shown.count("for all but packed") == 3 and shown.count("for neurons, lif and htaf") == 1


@pytest.mark.parametrize("name", gpu.commands("cuda"))
def test_commands_of_the_gpu_script_have_options_that_exist(name):
    app.parse_args(gpu.commands("cuda")[name], exit_on_error=False, print_error=False)


@pytest.mark.thorough
def test_the_gpu_script_is_rehearsed(tmp_path):
    parts = "card,neurons,networks,tiles"
    command = [sys.executable, "-m", "benchmarks.gpu", str(tmp_path), "--device", "cpu", "--parts", parts]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert [part["problem"] for part in report.values() if "problem" in part] == []
    assert report["card"]["copy_gb_s"] > 0
    (first, _) = report["neurons"]["results"]
    ours = [name for name in first["peers"] if name.startswith("hnn.")]
    assert all(first["peers"][name]["both_ms"] > 0 for name in (*ours, "snn.Leaky, stepped", "norse.LIF"))
    assert report["tiles"]["results"][0]["replayed_ms"] > 0
    assert "images_per_s" in report["networks"]["results"][0] and "hnn.Leaky, ATan" in process.stdout
