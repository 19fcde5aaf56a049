"""Studies that are killed, interrupted, shared by machines, or whose database is damaged, locked or away."""

import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from commands import run
from studies import SMALL, without_times

from htaf_snn.compare import Study, queue, working
from htaf_snn.compare.study import SETTINGS

PYTHON = [sys.executable, "-W", "ignore", "-c"]
RUN = "import sys; from htaf_snn.compare import Study; Study(sys.argv[1]).run(workers=2, progress=False)"


@pytest.mark.thorough
def test_killed_at_random_moments_the_study_ends_the_same(finished, tmp_path, monkeypatch, one_thread):
    for name, seconds in (("_HEARTBEAT_S", 1), ("_GRACE_S", 3)):
        monkeypatch.setattr(queue, name, seconds)
    Study(tmp_path, **finished.settings.as_dict())
    for moment in (5.0, random.Random(0).uniform(4, 8)):
        process = subprocess.Popen([*PYTHON, RUN, str(tmp_path)], start_new_session=True)
        time.sleep(moment)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    # The killed workers sent heartbeats every five seconds, perhaps just before they were killed.
    time.sleep(4)
    killed = Study(tmp_path)
    killed.work()
    assert without_times(killed.results()) == without_times(finished.results())
    states = [entry.state.name for entry in killed.queue._study.get_trials()]
    assert states.count("COMPLETE") == 18


def test_a_trial_of_a_process_killed_before_its_first_step_is_requeued(tmp_path, monkeypatch):
    for name, seconds in (("_HEARTBEAT_S", 1), ("_GRACE_S", 1)):
        monkeypatch.setattr(queue, name, seconds)
    study = Study(tmp_path, surrogates=["htaf"], seeds=2, **SMALL)
    assert len(study.queue.take(study.wanted)) == 1
    assert study.counts()["running"] == 1
    time.sleep(2.1)
    study.queue.requeue_stale()
    assert study.counts() == {"waiting": 2, "running": 0, "finished": 0, "failed": 0}


@pytest.mark.thorough
@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_study_requeues_its_trials(tmp_path):
    study = Study(tmp_path, surrogates=["htaf"], seeds=2, **{**SMALL, "epochs": 500})
    process = subprocess.Popen([*PYTHON, RUN, str(tmp_path)], stderr=subprocess.DEVNULL)
    while study.counts()["running"] < 2:
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    process.wait(150)
    assert study.counts() == {"waiting": 2, "running": 0, "finished": 0, "failed": 0}


def test_an_interrupted_study_says_how_far_it_is_and_how_to_go_on(tmp_path, monkeypatch):
    def stopped(study, *_):
        taken = study.queue.take(study.wanted)
        working._try(study, taken)
        raise KeyboardInterrupt

    options = ("--surrogates", "htaf", "--seeds", "2", "--epochs", "1", "--width", "8", "--n-time-bins", "2")
    monkeypatch.setattr(Study, "_run_workers", stopped)
    result = run("compare", *options, "--out", str(tmp_path / "study"))
    assert result.exit_code == 130
    expected = f"interrupted; 1 of 2 trials finished; continue with: htaf-snn compare --out {tmp_path / 'study'}\n"
    assert result.stderr.endswith(expected)


def test_a_study_without_results_says_how_to_go_on(tmp_path):
    study = Study(tmp_path / "study", surrogates=["htaf"], seeds=3, **SMALL)
    study.queue.take(study.wanted)
    result = run("report", str(tmp_path / "study"), "--to", str(tmp_path / "new"))
    expected = (
        f"expected a finished trial, got 2 waiting, 1 running of 3; go on with: htaf-snn compare --out {study.out}"
    )
    assert (result.exit_code, expected in result.stderr) == (2, True)


@pytest.mark.thorough
@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_stopped_just_after_it_took_a_trial_requeues_it(tmp_path, number):
    Study(tmp_path, surrogates=["htaf"], seeds=2, **SMALL)
    stopped = (
        "import os, signal, sys; from htaf_snn.compare import queue, study, working; took = queue.Queue.take\n"
        f"def take(*given): taken = took(*given); os.kill(os.getpid(), {int(number)}); return taken\n"
        "queue.Queue.take = take; signal.signal(signal.SIGTERM, working.stop)\n"
        "study.Study(sys.argv[1]).work()"
    )
    worker = subprocess.run([*PYTHON, stopped, str(tmp_path)], stderr=subprocess.PIPE, text=True)
    assert worker.returncode != 0, worker.stderr
    assert Study(tmp_path).counts() == {"waiting": 2, "running": 0, "finished": 0, "failed": 0}, worker.stderr


@pytest.mark.thorough
def test_damaged_files_and_databases_are_reported(finished, tmp_path):
    shutil.copytree(finished.out, tmp_path / "copy")
    (tmp_path / "copy" / "study.db").write_bytes(b"no database at all, but long enough to look at" * 100)
    with pytest.raises(OSError, match=r"storage: the database sqlite:.*study\.db cannot be used: .*not a database"):
        Study(tmp_path / "copy")
    (tmp_path / "copy" / SETTINGS).write_text("{")
    with pytest.raises(ValueError, match=r"study\.json: expected the settings of a study"):
        Study(tmp_path / "copy")
    with pytest.raises(OSError, match=r"storage: the database sqlite:////nowhere/at/all\.db cannot be used"):
        Study(tmp_path / "other", storage="sqlite:////nowhere/at/all.db", surrogates=["htaf"])


def test_an_unreachable_database_is_reported(tmp_path):
    with pytest.raises(OSError, match=r"storage: the database postgresql\+psycopg://127\.0\.0\.1:9/x cannot be used: "):
        Study(tmp_path, storage="postgresql+psycopg://127.0.0.1:9/x", surrogates=["htaf"])


@pytest.fixture
def postgres(tmp_path_factory):
    """The URL of a PostgreSQL server for one test."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        pytest.skip("PostgreSQL is not installed")
    user = "postgres" if os.getuid() == 0 else None  # the server refuses to run as root
    # Sockets have short paths, and the server's user has to reach the folder.
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        if user:
            shutil.chown(folder, user)
        data, quiet = f"{folder}/data", {"user": user, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run([programs[-1], "-D", data, "-A", "trust", "-U", "study", "--no-sync"], check=True, **quiet)
        command = [programs[-1].with_name("postgres"), "-D", data, "-p", str(port), "-k", folder]
        server = subprocess.Popen(command, **quiet)
        try:
            ready = [programs[-1].with_name("pg_isready"), "-h", "127.0.0.1", "-p", str(port)]
            while subprocess.run(ready, stdout=subprocess.DEVNULL).returncode:
                assert server.poll() is None
                time.sleep(0.1)
            yield f"postgresql+psycopg://study@127.0.0.1:{port}/postgres"
        finally:
            server.send_signal(signal.SIGINT)  # does not wait for open connections
            server.wait()


def test_two_machines_share_a_server(postgres, finished, tmp_path):
    """Each has its own folder; no trial is run twice."""
    settings = {**finished.settings.as_dict(), "slopes": (2.0,)}
    code = "import json, sys; from htaf_snn.compare import Study; "
    code += "Study(sys.argv[1], storage=sys.argv[2], **json.loads(sys.argv[3])).run(progress=False)"
    options = [postgres, json.dumps(settings)]
    both = [subprocess.Popen([*PYTHON, code, str(tmp_path / name), *options]) for name in "ab"]
    assert [process.wait(120) for process in both] == [0, 0]
    study = Study(tmp_path / "a", storage=postgres)
    assert [entry.state.name for entry in study.queue._study.get_trials()].count("COMPLETE") == 9
    expected = [trial for trial in finished.results() if trial["config"]["slope"] == 2.0]
    assert without_times(study.results()) == without_times(expected)


@pytest.mark.thorough
def test_a_locked_database_is_waited_for(tmp_path):
    study = Study(tmp_path, surrogates=["htaf"], seeds=1, **SMALL)
    lock = sqlite3.connect(tmp_path / "study.db", isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    process = subprocess.Popen([*PYTHON, RUN, str(tmp_path)], stderr=subprocess.DEVNULL)
    time.sleep(6)
    lock.execute("COMMIT")
    lock.close()
    assert process.wait(150) == 0
    assert study.counts()["finished"] == 1
