"""Studies on several machines: one identity in the database, and workers in jobs of a cluster."""

import signal
import sys
import weakref
from pathlib import Path

import optuna
import pytest
from commands import run

from htaf_snn.compare import Study, launching, queue
from htaf_snn.compare.databases import STORAGE

SMALL = {"epochs": 1, "train_fraction": 0.1, "width": 8}


@pytest.fixture
def database(tmp_path):
    return f"sqlite:///{tmp_path / 'shared.db'}"


def test_a_machine_joins_by_the_database_alone(tmp_path, database):
    first = Study(tmp_path / "a", storage=database, surrogates=["htaf", "atan"], seeds=2, **SMALL)
    second = Study(tmp_path / "b", storage=database)
    assert second.settings == first.settings and len(second.wanted) == 4
    assert (tmp_path / "b" / "study.json").read_text() == (tmp_path / "a" / "study.json").read_text()
    assert len(second.queue.entries()) == 4


@pytest.mark.thorough
def test_a_study_that_one_machine_extends_is_extended_for_all(tmp_path, database):
    first = Study(tmp_path / "a", storage=database, surrogates=["htaf"], seeds=1, **SMALL)
    second = Study(tmp_path / "b", storage=database, surrogates=["htaf"], seeds=3, **SMALL)
    assert first.settings.seeds == 1
    first.add_missing()
    assert first.settings.seeds == 3 and Study(tmp_path / "a", storage=database).settings.seeds == 3
    first.work()
    pages = [study.report().read_text() for study in (first, second)]
    assert pages[0] == pages[1] and "3 of 3 trials are finished" in pages[0]


@pytest.mark.thorough
def test_seeds_added_to_results_are_told_by_every_machine(tmp_path, database):
    first = Study(tmp_path / "a", storage=database, surrogates=["htaf"], seeds=1, **SMALL)
    second = Study(tmp_path / "b", storage=database, seeds=2)
    assert second.queue.extended_from() == []  # nobody could have looked
    first.add_missing()
    first.work()
    assert "Extended" not in first.report().read_text()
    Study(tmp_path / "b", seeds=3).work()
    Study(tmp_path / "a", seeds=3)
    for name in "ab":
        study = Study(tmp_path / name, read_only=True)
        assert study.queue.extended_from() == [2]
        assert "Extended from 2 to 3 seeds after results were in" in study.report().read_text()
    assert "Extended from 2 to 3 seeds" in run("report", str(tmp_path / "a")).stderr


def test_a_machine_that_lacks_seeds_does_not_take_them_away(tmp_path, database):
    Study(tmp_path / "a", storage=database, surrogates=["htaf"], seeds=3, **SMALL)
    late = Study(tmp_path / "b", storage=database, surrogates=["htaf"], seeds=1, **SMALL)
    assert late.settings.seeds == 3 and queue.stored_settings(database)["seeds"] == 3


def test_another_study_in_the_database_is_refused(tmp_path, database):
    Study(tmp_path / "a", storage=database, surrogates=["htaf"], seeds=1, **SMALL)
    with pytest.raises(ValueError, match=r"shared.db: the study in this database has other settings; surrogates: "):
        Study(tmp_path / "b", storage=database, surrogates=["atan"], seeds=1, **SMALL)
    # What may differ between machines, or between their reports, is no other study.
    data = {"device": "auto", "select": "val", "slopes": [0.5, 1.0], "surrogates": ["htaf"], "seeds": 1}
    with pytest.raises(ValueError, match="slopes: expected"):
        Study(tmp_path / "c", storage=database, **data, **SMALL)


def test_a_refused_study_stays_as_it_is(tmp_path, database):
    Study(tmp_path / "a", surrogates=["htaf"], seeds=1, **SMALL)
    Study(tmp_path / "b", storage=database, surrogates=["atan"], seeds=1, **SMALL)
    before = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    with pytest.raises(ValueError, match=r"shared.db: the study in this database has other settings; surrogates: "):
        Study(tmp_path / "a", storage=database, seeds=2)
    assert {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()} == before


def test_an_empty_database_has_no_study_to_join(tmp_path, database):
    assert queue.stored_settings(database) is None
    with pytest.raises(ValueError, match=r"^storage: expected settings, or a database with a study, got sqlite"):
        Study(tmp_path / "a", storage=database, device="cpu")
    assert not (tmp_path / "a").exists()


@pytest.mark.thorough
def test_a_report_writes_nothing_into_the_study(tmp_path, database):
    settings = {"surrogates": ["htaf", "atan"], "slopes": [0.5, 1.0], "select": "val", "select_seeds": 1}
    study = Study(tmp_path / "a", storage=database, seeds=2, **settings, **SMALL)
    study.work()  # without adding the trials of the seed that does not select
    waiting = Study(tmp_path / "a", read_only=True)
    assert waiting.counts() == {"waiting": 0, "running": 0, "finished": 4, "failed": 0}
    study.run(progress=False)
    Study(tmp_path / "b", storage=database, seeds=3, **settings, **SMALL).work()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    locked = f"sqlite:///file:{tmp_path / 'shared.db'}?mode=ro&uri=true"
    reading = Study(tmp_path / "a", storage=locked, read_only=True)
    assert reading.settings.seeds == 3
    assert reading.report(to=tmp_path / "new" / "report").parent == tmp_path / "new" / "report"
    with pytest.raises(optuna.exceptions.StorageInternalError):  # the database can indeed not be written
        reading.queue.keep_settings({})
    result = run("report", str(tmp_path / "a"), "--to", str(tmp_path / "other"))
    assert result.exit_code == 0 and "report: " in result.stdout and (tmp_path / "other" / "table.csv").is_file()
    assert {path: path.read_bytes() for path in before} == before
    assert not list(Path().glob("file:*"))
    (tmp_path / "a" / STORAGE).unlink()
    result = run("report", str(tmp_path / "a"))
    assert (result.exit_code, (tmp_path / "a" / "study.db").exists()) == (2, False)
    assert "error: --storage: expected the database of a study, got no file" in result.stderr
    with pytest.raises(ValueError, match=r"^read_only: expected a study without new settings, got seeds"):
        Study(tmp_path / "a", read_only=True, seeds=9)


def test_no_url_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^storage: expected a URL such as sqlite:////folder/study.db"):
        Study(tmp_path / "a", storage="shared.db", surrogates=["htaf"])


def test_the_folder_alone_continues_a_shared_study(tmp_path, database):
    first = Study(tmp_path / "a", storage=database, surrogates=["htaf"], seeds=2, **SMALL)
    assert Study(tmp_path / "a").storage == database and not (tmp_path / "a" / "study.db").exists()
    assert Study(tmp_path / "a", seeds=3).counts()["waiting"] == 3
    first.add_missing()
    assert first.settings.seeds == 3


def test_a_refused_machine_can_join_afterwards(tmp_path, database):
    first = Study(tmp_path / "a", storage=database, surrogates=["htaf"], seeds=2, **SMALL)
    with pytest.raises(ValueError, match="other settings"):
        Study(tmp_path / "b", storage=database, surrogates=["atan"], seeds=1, **SMALL)
    assert not (tmp_path / "b").exists()
    assert Study(tmp_path / "b", storage=database).settings == first.settings


def test_a_machine_joins_with_its_own_device_and_data(tmp_path, database):
    Study(tmp_path / "a", storage=database, surrogates=["htaf"], seeds=2, **SMALL)
    second = Study(tmp_path / "b", storage=database, device="cpu", seeds=3)
    assert second.settings.shared.device == "cpu" and second.settings.seeds == 3 and len(second.wanted) == 3
    assert queue.stored_settings(database)["seeds"] == 3


def test_seeds_alone_extend_a_study(tmp_path):
    Study(tmp_path, surrogates=["htaf"], seeds=2, **SMALL)
    assert Study(tmp_path, seeds=4).counts()["waiting"] == 4
    with pytest.raises(ValueError, match="seeds: expected at least 4"):
        Study(tmp_path, seeds=3)


def test_two_folders_lock_one_database(tmp_path, database):
    folders = [Study(tmp_path / name, storage=database, surrogates=["htaf"], seeds=1, **SMALL) for name in "ab"]
    assert {study.queue._lock for study in folders} == {tmp_path / ".shared.lock"}


@pytest.mark.thorough
def test_jobs_of_a_cluster_work_on_a_study(tmp_path, monkeypatch):
    """With submitit's executor for one machine in the place of a cluster's."""
    monkeypatch.setattr(launching, "_CLUSTER", "local")
    monkeypatch.setattr(launching, "check", lambda *given: None)  # which refuses a database in a file
    study = Study(tmp_path, surrogates=["htaf"], seeds=2, **SMALL)
    counts = study.run(workers=2, progress=False, launcher="slurm", slurm={"timeout_min": 5})
    assert counts == {"waiting": 0, "running": 0, "finished": 2, "failed": 0}
    assert sorted((tmp_path / ".jobs").glob("*_submitted.pkl"))


def test_a_job_that_fails_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(launching, "_CLUSTER", "local")
    failing = [sys.executable, "-c", "raise SystemExit('no such disk')"]
    workers = launching.launched("slurm", 1, failing, tmp_path, {})
    with pytest.raises(RuntimeError, match=r"a worker failed: .*no such disk"):
        launching.watch(workers, lambda: None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"launcher": "pbs"}, "^launcher: expected one of local, slurm, got 'pbs'"),
        ({"slurm": {"timeout_min": 5}}, "^slurm: expected no options with the launcher local, got timeout_min"),
        ({"launcher": "slurm"}, "^storage: expected the URL of a server, such as postgresql.*, got a file"),
    ],
)
def test_what_launchers_do_not_take(tmp_path, options, message):
    study = Study(tmp_path, surrogates=["htaf"], seeds=1, **SMALL)
    with pytest.raises(ValueError, match=message):
        study.run(**options)
    assert study.counts()["waiting"] == 1


def test_unknown_options_of_jobs_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(launching, "_CLUSTER", "local")
    with pytest.raises(ValueError, match=r"^slurm: expected options of a cluster's job, got \{'colour': 5\}"):
        launching.launched("slurm", 1, ["true"], tmp_path, {"colour": 5})


def test_a_missing_library_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ImportError, match=r'submitit is not installed; pip install ".\[slurm\]"'):
        launching.launched("slurm", 1, ["true"], tmp_path, {})


def test_the_command_passes_the_launcher_on(tmp_path):
    options = ("--surrogates", "htaf", "--seeds", "1", "--out", str(tmp_path / "a"))
    result = run("compare", *options, "--slurm", "timeout_min=5")
    assert result.exit_code == 2 and result.stderr.splitlines()[-1] == (
        "error: --slurm: expected no options with the launcher local, got timeout_min"
    )
    result = run("compare", *options, "--launcher", "slurm")
    assert (result.exit_code, "--storage: expected the URL of a server" in result.stderr) == (2, True)
    assert not (tmp_path / "a").exists()


def test_commas_belong_to_the_options_of_jobs(tmp_path, monkeypatch):
    given = {}
    monkeypatch.setattr(launching, "check", lambda *given: None)
    monkeypatch.setattr(Study, "run", lambda self, **options: given.update(options["slurm"]) or self.work())
    own = ("--surrogates", "htaf", "--seeds", "1", "--epochs", "1", "--train-fraction", "0.1", "--width", "8")
    options = ("--slurm", "slurm_partition=gpu,cpu", "--slurm", "timeout_min=5", "--out", str(tmp_path / "a"))
    assert run("compare", *own, *options).exit_code == 0
    assert given == {"slurm_partition": "gpu,cpu", "timeout_min": 5}


def test_workers_are_asked_to_stop_when_the_program_is(tmp_path):
    """Until all have stopped, also if a signal was swallowed."""
    asked = []

    class Stubborn:
        def is_done(self):
            return len(asked) > 1

        def problem(self):
            return None

        def ask_to_stop(self):
            asked.append(self)

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launching.watch([Stubborn()], interrupt)
    assert len(asked) == 2


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_in_a_callback_is_not_swallowed():
    class Busy(set):
        """A worker, which ends when it is asked to, or by itself."""

        polls = 0

        def is_done(self):
            self.polls += 1
            return self.polls > 4

        def problem(self):
            return None

        def ask_to_stop(self):
            self.polls = 5

    def show():
        gone = Busy()
        weakref.finalize(gone, signal.raise_signal, signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        launching.watch([Busy()], show)


def test_a_worker_process_tells_its_last_line(tmp_path):
    failing = [sys.executable, "-c", "import sys; print('first', file=sys.stderr); sys.exit('last')"]
    with pytest.raises(RuntimeError, match=r"^a worker failed: last$"):
        launching.watch(launching.launched("local", 1, failing, tmp_path, {}), lambda: None)
