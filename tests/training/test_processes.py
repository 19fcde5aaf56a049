"""Networks trained by several processes under torchrun."""

import json
import os
import sys

import pytest
import torch
from runs import SMALL, metrics, torchrun

from htaf_snn.compare import Study
from htaf_snn.training import Processes, Run, train, train_folds

pytest.importorskip("lightning_fabric", reason="lightning-fabric is not installed")


def assert_close(lines, expected):
    for line, other in zip(lines, expected, strict=True):
        assert line == {name: pytest.approx(value, rel=1e-4) for name, value in other.items()}


@pytest.mark.thorough
def test_two_processes_train_like_one(recordings, tmp_path):
    """40 recordings in batches of 13: the last batch has one, so one process gets an empty shard."""
    options = [*SMALL, "--batch-size", 13, "--val-fraction", 0, "--data-root", recordings]
    shared = {"dataset": "nmnist", "data_root": recordings, "batch_size": 13, "val_fraction": 0}
    config = Run(**shared, hidden=(12,), n_time_bins=3, lr=0.01, epochs=4)
    alone = train(config, tmp_path / "alone", progress=False)
    run = torchrun("train", *options, "--epochs", 2, "--out", tmp_path / "both", "--json")
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["processes"] == 2  # printed once
    again = torchrun("train", "--resume", "--epochs", 4, "--out", tmp_path / "both", "--json")
    assert again.returncode == 0, again.stderr
    assert_close(metrics(tmp_path / "both"), metrics(tmp_path / "alone"))
    assert json.loads(again.stdout)["test_loss"] == pytest.approx(alone["test_loss"], rel=1e-4)


@pytest.mark.thorough
def test_a_folder_in_use_is_refused(recordings, tmp_path):
    (tmp_path / "file").touch()
    run = torchrun("train", *SMALL, "--data-root", recordings, "--out", tmp_path)
    assert run.returncode != 0
    assert "expected a new or empty folder" in run.stderr
    assert os.listdir(tmp_path) == ["file"]


def test_folds_are_refused_under_torchrun(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="folds: not supported under torchrun; pass fold=K"):
        train_folds(Run(folds=2), tmp_path / "out")
    assert not (tmp_path / "out").exists()


MEASURES = """
import torch
from torch.utils.data import DataLoader, TensorDataset
from htaf_snn import hardening
from htaf_snn.nn import BinaryActivation
from htaf_snn.training import Processes

processes = Processes.launched()
torch.manual_seed(0)
net = torch.nn.Sequential(BinaryActivation("htaf(hardness=0.0)"), torch.nn.BatchNorm1d(3))
loader = DataLoader(TensorDataset(torch.randn(300, 3), torch.zeros(300).long()), 4, shuffle=True)
torch.manual_seed(processes.rank)
hardening.recalibrate(net, loader)
own = net[1].running_var.tolist()
torch.manual_seed(processes.rank)
hardening.recalibrate(net, loader, processes=processes)
mean = [value / 2 for value in processes.sum(*own)]
both = net[1].running_var.tolist()
assert both != own and all(abs(a - b) < 1e-6 for a, b in zip(both, mean)), (both, own, mean)
processes.shutdown()
"""


@pytest.mark.thorough
def test_processes_that_draw_other_batches_measure_the_same_statistics(tmp_path):
    (tmp_path / "measures.py").write_text(MEASURES)
    run = torchrun(program=[tmp_path / "measures.py"])
    assert run.returncode == 0, run.stderr


def test_a_process_alone_has_no_peers():
    assert Processes.launched() is None


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    with pytest.raises(ImportError, match=r'pip install ".\[distributed\]"'):
        Processes.launched()


@pytest.mark.thorough
def test_all_processes_share_each_trial_of_a_study(tmp_path):
    """A failed trial, whose surrogate's gradient overflows, does not stop them."""
    settings = {"surrogates": ["htaf", "atan"], "seeds": 1, "width": 8, "epochs": 1, "n_time_bins": 2}
    arguments = [
        "--surrogates",
        "htaf,atan,snntorch.sigmoid(slope=1000)",
        "--seeds",
        1,
        "--width",
        8,
        "--epochs",
        1,
        "--n-time-bins",
        2,
    ]
    run = torchrun("compare", *arguments, "--out", tmp_path / "both", "--json")
    assert run.returncode == 0, run.stderr
    both = Study(tmp_path / "both")
    assert both.counts() == {"waiting": 0, "running": 0, "finished": 2, "failed": 1}
    assert "NaN gradient" in both.failures()[0]["error"]
    assert [row["surrogate"] for row in json.loads(run.stdout)] == ["htaf", "atan"]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = Study(tmp_path / "alone", **settings)
    alone.work()
    torch.set_num_threads(threads)
    for trial, other in zip(both.results(), alone.results(), strict=True):
        assert trial["result"]["curves"][0] == {
            name: pytest.approx(value, rel=1e-3) for name, value in other["result"]["curves"][0].items()
        }
