"""Studies: run in parallel and continued; and their reports."""

import csv
import json
import re
from html.parser import HTMLParser

import pytest
import torch
from browser import probe
from commands import run
from studies import SMALL, STILL, SURROGATES, one_trial, without_times

from htaf_snn.compare import Study, findings, report, stacking, trial
from htaf_snn.compare.study import SETTINGS
from htaf_snn.surrogate import Rescaled


@pytest.mark.thorough
def test_every_combination_is_tried_once(finished):
    configs = [trial["config"] for trial in finished.results()]
    assert configs == json.loads(json.dumps([trial.config() for trial in finished.settings.trials()]))
    states = [entry.state.name for entry in finished.queue._study.get_trials()]
    assert states == ["COMPLETE"] * 18


def test_a_trial_is_a_function_of_its_configuration(finished, one_thread):
    one = one_trial("norse.super", slope=2.0, seed=1, match="peak", **SMALL)
    config = json.loads(json.dumps(one.config()))
    [expected] = [entry["result"] for entry in finished.results() if entry["config"] == config]
    again = trial.run(one)
    assert json.loads(json.dumps({**again, "times": None})) == {**expected, "times": None}


def test_continuing_changes_nothing(finished):
    before = without_times(finished.results())
    again = Study(finished.out)
    assert again.settings == finished.settings
    assert again.run(workers=2, progress=False)["finished"] == 18
    assert without_times(again.results()) == before
    assert len(again.queue._study.get_trials()) == 18


def test_other_settings_are_refused_and_shown(finished):
    with pytest.raises(ValueError, match=r"the study in this folder has other settings; .*seeds: expected at least 3"):
        Study(finished.out, surrogates=SURROGATES, slopes=[0.5, 2.0], seeds=2, **SMALL)
    assert Study(finished.out, surrogates=SURROGATES, slopes=[0.5, 2.0], seeds=3, **SMALL).counts()["finished"] == 18
    before = (finished.out / SETTINGS).read_text()
    elsewhere = Study(finished.out, surrogates=SURROGATES, slopes=[0.5, 2.0], seeds=3, device="cpu", **SMALL)
    assert elsewhere.counts()["finished"] == len(elsewhere.results()) == 18
    assert Study(finished.out).settings.shared.device == "cpu"
    (finished.out / SETTINGS).write_text(before)


def test_the_table(finished):
    rows = finished.table()
    places = [(name, slope) for name in SURROGATES for slope in (0.5, 2.0)]
    assert [(row["surrogate"], row["slope"]) for row in rows] == places
    for row in rows:
        scores = [
            trial["result"]["test_accuracy"]
            for trial in finished.results()
            if (trial["config"]["surrogate"], trial["config"]["slope"]) == (row["surrogate"], row["slope"])
        ]
        assert row["mean"] == pytest.approx(sum(scores) / 3)
        assert row["low"] <= row["mean"] <= row["high"]
        assert (row["seeds"], row["at_zero"]) == (3, "no")
        claims = ["baseline"] if row["surrogate"] == "htaf" else ["better", "worse", "no difference shown"]
        assert row["claim"] in claims
        # The peak of norse.super is 1, of atan and htaf too; a slope multiplies it.
        assert row["gain"] == pytest.approx(1 / row["slope"], rel=1e-6)
    assert {row["surrogate"] for row in rows if row["fault"]} == {"snntorch.atan", "norse.super"}
    assert (
        set(findings.ranks(finished.settings, finished.results())[0])
        == set(findings.areas(finished.settings, rows))
        == set(SURROGATES)
    )


def test_the_files(finished):
    rows = finished.table()
    with open(finished.out / "table.csv") as file:
        read = list(csv.DictReader(file))
    assert [float(line["mean"]) for line in read] == [row["mean"] for row in rows]
    markdown = (finished.out / "table.md").read_text().splitlines()
    assert len(markdown) == 8
    assert len({line.count("|") for line in markdown}) == 1
    latex = (finished.out / "table.tex").read_text()
    assert latex.startswith("\\begin{tabular}")
    assert r"surrogate & slope & seeds & test accuracy & rank & difference & p (Holm) & claim \\" in latex
    row = next(row for row in rows if (row["surrogate"], row["slope"]) == ("norse.super", 2.0))
    assert rf"norse.super & 2 & 3 & ${row['mean']:.4f} \pm {row['std']:.4f}$ & " in latex
    assert latex.count(r"\\") == 7
    chosen = report.as_latex(finished.settings, rows, ["dataset", "acs"])
    assert chosen.startswith("\\begin{tabular}{lr}") and chosen.count("&") == 7
    with pytest.raises(ValueError, match=r"^columns: expected one of dataset, .*, got 'colour'"):
        finished.report(["colour"])
    names = {path.name for path in (finished.out / "figures").iterdir()}
    assert {f"beside-the-baseline.{kind}" for kind in ("svg", "pdf", "csv")} <= names and len(names) == 18
    with open(finished.out / "figures" / "test-accuracy.csv") as file:
        assert [float(line["mean"]) for line in csv.DictReader(file)] == [row["mean"] for row in rows]
    results = json.loads((finished.out / "results.json").read_text())
    assert results["table"] == json.loads(json.dumps(rows))
    assert len(results["trials"]) == 18


class Page(HTMLParser):
    """Collects the links that a page would fetch, its images' texts and its open tags."""

    def __init__(self):
        super().__init__()
        self.fetched, self.alternatives, self.tags = [], [], []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        self.fetched += [attributes[name] for name in ("src", "href") if name in attributes and tag != "use"]
        if attributes.get("role") == "img":
            self.alternatives.append(attributes["aria-label"])


@pytest.mark.thorough
def test_the_report_leaves_the_users_plots_alone(finished):
    import matplotlib.pyplot as plt

    plt.switch_backend("svg")
    figure = plt.figure()
    finished.report()
    assert plt.get_backend() == "svg" and plt.get_fignums() == [figure.number]
    plt.close(figure)


def test_the_page_needs_no_network_and_describes_its_figures(finished):
    text = (finished.out / "report.html").read_text()
    page = Page()
    page.feed(text)
    assert all(link.startswith(("data:", "#")) for link in page.fetched)
    assert "url(http" not in text
    assert len(page.alternatives) == page.tags.count("figure") == 6
    assert all(len(words) > 20 for words in page.alternatives)
    command = "htaf-snn compare --out DIR --model mlp --dataset saccade-digits"
    assert text.count("accumulations per sample") == 2  # a heading's tooltip, and the list of columns
    for part in (command, "alpha is ignored by Norse", torch.__version__.split("+")[0]):
        assert part in text


@pytest.mark.thorough
@pytest.mark.usefixtures("workers_here")
def test_several_data_sets(tmp_path, recordings):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "nmnist").symlink_to(recordings)
    settings = {"dataset": ["saccade-digits", "nmnist"], "data_root": str(tmp_path / "data")}
    study = Study(tmp_path / "out", surrogates=["htaf", "atan"], seeds=3, **settings, **SMALL)
    assert study.run(workers=2, progress=False)["finished"] == 12
    rows = study.table()
    places = [(data, name) for data in ("saccade-digits", "nmnist") for name in ("htaf", "atan")]
    assert [(row["dataset"], row["surrogate"]) for row in rows] == places
    assert [row["claim"] == "baseline" for row in rows] == [True, False, True, False]
    for row in rows[1::2]:  # each against the baseline of its own data set
        base = next(other for other in rows if (other["dataset"], other["surrogate"]) == (row["dataset"], "htaf"))
        assert row["difference"] == pytest.approx(row["mean"] - base["mean"])
    page = study.report().read_text()
    assert "Surrogates on saccade-digits, nmnist" in page
    assert "htaf, nmnist" in page


@pytest.mark.thorough
def test_fewer_than_three_seeds_make_no_claim(tmp_path):
    study = Study(tmp_path, surrogates=["htaf", "atan"], seeds=1, **SMALL)
    study.run(workers=1, progress=False)
    assert "no claim can be made" in study.report().read_text()
    assert [row["claim"] for row in study.table()] == ["baseline", "too few seeds"]
    assert study.table()[0]["low"] is None


@pytest.mark.thorough
def test_a_failed_trial_is_kept_and_the_rest_go_on(tmp_path, monkeypatch):
    study = Study(tmp_path, surrogates=["htaf", "atan"], seeds=2, **SMALL)
    run = trial.run

    def fails_once(config, processes, *given):
        if (config.surrogate, config.run.seed) == ("atan", 1):
            raise FloatingPointError("layer 2: NaN gradient behind the surrogate atan")
        return run(config, processes, *given)

    monkeypatch.setattr(trial, "run", fails_once)
    study.work()
    assert study.counts() == {"waiting": 0, "running": 0, "finished": 3, "failed": 1}
    [failure] = study.failures()
    assert (failure["config"]["surrogate"], failure["config"]["seed"]) == ("atan", 1)
    assert "FloatingPointError: layer 2: NaN gradient behind the surrogate atan" in failure["error"]
    assert "layer 2: NaN gradient" in study.report().read_text()
    monkeypatch.undo()
    assert Study(tmp_path).run(workers=1, progress=False)["failed"] == 1


def test_all_trials_failed(tmp_path, monkeypatch):
    study = Study(tmp_path, surrogates=["htaf"], seeds=2, **SMALL)
    monkeypatch.setattr(trial, "run", lambda *_: 1 / 0)
    study.work()
    message = "expected a finished trial, got none; all 2 have failed, the first: ZeroDivision"
    with pytest.raises(ValueError, match=message):
        study.report()
    result = run("report", str(tmp_path))
    assert result.exit_code == 2
    assert "all 2 have failed" in result.stderr


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("model", "dataset"), [("mlp", "saccade-digits"), ("dhn", "digits")])
def test_a_trial_on_a_gpu_is_one_on_a_cpu(model, dataset):
    small = SMALL if model == "mlp" else STILL
    on_gpu, on_cpu = (
        trial.run(one_trial(model=model, dataset=dataset, device=name, **small)) for name in ("cuda", "cpu")
    )
    _assert_close(on_gpu["gradient_layers"], on_cpu["gradient_layers"])
    assert on_gpu["test_accuracy"] == pytest.approx(on_cpu["test_accuracy"], abs=0.1)


@pytest.mark.thorough
def test_the_command(tmp_path, finished):
    arguments = ["--surrogates", "htaf(alpha=1, beta=8),atan", "--seeds", "2", "--width", "8", "--epochs", "1"]
    arguments += ["--n-time-bins", "2", "--batch-size", "256", "--out", str(tmp_path / "out")]
    result = run("compare", *arguments, "--json")
    assert result.exit_code == 0, result.output
    assert [row["surrogate"] for row in json.loads(result.stdout)] == ["htaf(alpha=1, beta=8)", "atan"]
    wrong = [*arguments[:-2], "--slopes", "a,b", "--out", str(tmp_path / "new")]
    result = run("compare", *wrong)
    assert (result.exit_code, "slopes: expected numbers separated by commas, got 'a,b'" in result.stderr) == (2, True)
    result = run("compare", "--width", "9", "--out", str(finished.out))
    assert (result.exit_code, "the study in this folder has other settings" in result.stderr) == (2, True)
    message = f"continuing the study in {finished.out}: 18 finished; --out DIR starts another"
    result = run("compare", "--out", str(finished.out))
    assert (result.exit_code, message in result.stderr) == (0, True)
    result = run("report", str(tmp_path))
    assert (result.exit_code, "expected the folder of a study" in result.stderr) == (2, True)
    result = run("report", str(finished.out))
    assert result.exit_code == 0
    assert len(re.findall(r"depth 2, slope (0\.5|2),", result.stdout)) == 6


@pytest.mark.parametrize("width", [390, 800, 1400])
def test_the_page_in_a_browser(finished, tmp_path, width):
    """Tables sort, figures are drawn, what scrolls can be reached by keyboard, and the console stays empty."""
    script = """
      const column = [...document.querySelectorAll('th')].findIndex(h => h.textContent === 'test accuracy');
      const rows = document.querySelector('table').tBodies[0].rows;
      const values = () => [...rows].map(r => +r.cells[column].textContent);
      document.querySelectorAll('th button')[column].click();
      const up = values(), risen = up.every((v, i) => !i || v >= up[i - 1]);
      document.querySelectorAll('th button')[column].click();
      const down = values(), fallen = down.every((v, i) => !i || v <= down[i - 1]);
      const drawn = [...document.querySelectorAll('figure svg')].every(s => s.getBoundingClientRect().height > 50);
      const reached = [...document.querySelectorAll('.wide')].every(area => area.tabIndex === 0);
      return {risen, fallen, drawn, reached, fits: document.documentElement.scrollWidth <= innerWidth};"""
    seen = probe((finished.out / "report.html").read_text(), script, tmp_path, width)
    assert seen == {"risen": True, "fallen": True, "drawn": True, "reached": True, "fits": True}


class _NoGradient(torch.autograd.Function):
    @staticmethod
    def forward(x):
        return (x > 0).to(x.dtype)

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, grad):
        return grad * float("nan")


class WithoutGradient(Rescaled):
    def forward(self, x):
        return _NoGradient.apply(x)


def test_the_guard_names_layer_and_surrogate(monkeypatch):
    monkeypatch.setattr(trial.Trial, "rescaled", lambda self: WithoutGradient("htaf"))
    message = r"layers\.1\.bias: NaN gradient in epoch 1, step 1, behind the surrogate htaf"
    with pytest.raises(FloatingPointError, match=message):
        trial.run(one_trial(**SMALL))


@pytest.mark.thorough
def test_stacked_seeds_equal_separate_runs(finished, tmp_path, one_thread):
    """Within rounding: a spike moved by rounding may change the class of a few recordings."""
    study = Study(tmp_path, **finished.settings.as_dict())
    study.run(workers=2, progress=False, stack_seeds=True)
    assert [trial["config"] for trial in study.results()] == [trial["config"] for trial in finished.results()]
    for stacked, separate in zip(study.results(), finished.results(), strict=True):
        _assert_close(stacked["result"], separate["result"])


def _assert_close(got, expected, name=""):
    if isinstance(expected, dict):
        assert [*got] == [*expected], name
        for key in expected.keys() - {"times"}:
            _assert_close(got[key], expected[key], key)
    elif isinstance(expected, list):
        assert len(got) == len(expected), name
        for item, other in zip(got, expected, strict=True):
            _assert_close(item, other, name)
    else:
        assert got == pytest.approx(expected, rel=1e-3), name


def test_seeds_that_cannot_be_stacked_are_run_separately(tmp_path, monkeypatch):
    def cannot(configs):
        raise stacking.StackingError("one of them")

    monkeypatch.setattr(stacking, "run", cannot)
    study = Study(tmp_path, surrogates=["htaf"], seeds=2, **SMALL)
    study.work(stack_seeds=True)
    assert study.counts()["finished"] == 2


def test_a_gradient_that_is_not_finite_is_not_stacked(monkeypatch):
    monkeypatch.setattr(trial.Trial, "rescaled", lambda self: WithoutGradient("htaf"))
    with pytest.raises(stacking.StackingError, match="not finite in epoch 1"):
        stacking.run([one_trial(seed=seed, **SMALL) for seed in (0, 1)])
