"""Progress bars of the data sets."""

import time

import pytest

from neuromorphic_datasets._progress import bar


@pytest.mark.parametrize(("is_terminal", "fewest", "most"), [(True, 4, 20), (False, 1, 3)])
def test_a_log_gets_few_lines(capsys, monkeypatch, is_terminal, fewest, most):
    monkeypatch.setattr("sys.stderr.isatty", lambda: is_terminal)
    for _ in bar(range(60), desc="reading"):
        time.sleep(0.01)
    written = capsys.readouterr().err
    assert "reading: 100%" in written
    assert fewest <= written.count("\r") <= most
