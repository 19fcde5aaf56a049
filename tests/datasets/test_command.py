"""`htaf-snn datasets`."""

import json

import commands
import pytest
from event_files import EVENTS, nmnist

import neuromorphic_datasets as nd


def run(*arguments, code=0):
    result = commands.run("datasets", *arguments)
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for part, digits in (("Train", (0, 1, 1)), ("Test", (0, 1))):
        for number, digit in enumerate(digits):
            file = tmp_path / part / str(digit) / f"{number}.bin"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(nmnist())
    return tmp_path


def test_list_and_info():
    assert [line.split()[0] for line in run("list").stdout.splitlines()] == nd.names()
    listed = json.loads(run("list", "--json").stdout)
    assert [entry["name"] for entry in listed] == nd.names()
    for name in nd.names():
        shown = run("info", name).stdout
        assert nd.info(name).title in shown
        entry = json.loads(run("info", name, "--json").stdout)
        assert entry == next(other for other in listed if other["name"] == name)
    assert "MD5 3a8f0d4120a166bac7591f77409cb105" in run("info", "dvsgesture").stdout


def test_cache_verify_clear(root):
    lines = run("cache", "nmnist", "--data-root", root, "--n-time-bins", 4).stdout.splitlines()
    assert len(lines) == 2
    assert all(".pack" in line and line.endswith("MB") for line in lines)
    assert run("verify", "nmnist", "--data-root", root).stdout == "nmnist: no faults\n"
    deleted = run("clear", "nmnist", "--data-root", root).stdout.splitlines()
    assert len(deleted) == 2
    assert run("clear", "nmnist", "--data-root", root).stdout == "nmnist: nothing to delete\n"
    assert nd.load("nmnist", root=root).targets.tolist() == [0, 1, 1]
    sizes = json.loads(run("cache", "nmnist", "--data-root", root, "--json").stdout)
    assert len(sizes) == 2 and all(path.endswith(".pack") and size > 0 for path, size in sizes.items())
    assert sorted(json.loads(run("clear", "nmnist", "--data-root", root, "--json").stdout)) == sorted(sizes)
    assert json.loads(run("download", "saccade-digits", "--json").stdout) is None


def test_damage(root):
    (root / "Test" / "1" / "1.bin").write_bytes(nmnist(EVENTS)[:-2])
    result = run("verify", "nmnist", "--data-root", root, code=1)
    assert "1/1.bin: byte 25" in result.stdout
    assert len(json.loads(run("verify", "nmnist", "--data-root", root, "--json", code=1).stdout)) == 1
    assert "1/1.bin: byte 25" in run("cache", "nmnist", "--data-root", root, code=2).stderr
    with pytest.warns(UserWarning, match="1 of 2 recordings are left out"):
        run("cache", "nmnist", "--data-root", root, "--skip-damaged")


def test_errors_are_reported(tmp_path):
    assert "error: NAME: expected one of ['asldvs'" in run("info", "none", code=2).stderr
    lines = run("verify", "nmnist", "--data-root", tmp_path, code=2).stderr.splitlines()
    assert lines[0].startswith("error: --data-root: expected N-MNIST")
    assert any(str(tmp_path / "NMNIST" / "train.zip") in line for line in lines)
    assert "simulated" in run("download", "saccade-digits").stdout
    assert "allows no automatic download" in run("download", "dvslip", "--data-root", tmp_path, code=2).stderr
