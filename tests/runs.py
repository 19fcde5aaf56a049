"""Runs of training on small recordings: their options, their lines, their interruptions."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import load_file

from htaf_snn import training

SMALL = ["--dataset", "nmnist", "--hidden", "12", "--n-time-bins", "3", "--batch-size", "8", "--lr", "0.01"]


def metrics(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


@contextmanager
def interrupted(epochs):
    """Within the block a training stops after so many epochs, as on Ctrl-C."""
    train_epoch, calls = training.loop.train_epoch, []

    def stopped(*positional, **named):
        if len(calls) == epochs:
            raise KeyboardInterrupt
        calls.append(None)
        return train_epoch(*positional, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.loop, "train_epoch", stopped)
        yield


def resumed_run(config, folder):
    """Check that a resumed run equals one that was not interrupted; return its result and its surrogate's numbers."""
    whole = training.train(config, folder / "whole", progress=False)
    with interrupted(1), pytest.raises(KeyboardInterrupt):
        training.train(config, folder / "parts", progress=False)
    parts = training.train(config, folder / "parts", resume=True, progress=False)
    assert metrics(folder / "parts") == metrics(folder / "whole")
    assert {**parts, "seconds": 0, "out": ""} == {**whole, "seconds": 0, "out": ""}
    first, second = (load_file(folder / name / training.CHECKPOINT) for name in ("whole", "parts"))
    assert first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())
    [numbers] = [bytes(value.tolist()) for name, value in first.items() if name.endswith("_extra_state")]
    return whole, json.loads(numbers)


def assert_one_error(shown, *words):
    assert shown.exit_code == 2, shown.output
    assert len(shown.stderr.strip().splitlines()) == 1 and shown.stderr.startswith("error: ")
    for word in words:
        assert word in shown.stderr


def torchrun(*arguments, count=2, program=("-m", "htaf_snn")):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", count]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command += [*program, *arguments]
    return subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=300, env=environment)
