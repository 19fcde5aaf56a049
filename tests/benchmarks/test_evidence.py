"""The claims' commands: valid settings, quick forms without data, and a page that is that of the results."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from studies import workers_here

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))  # at the end, so that the package that is tested stays the installed one

from benchmarks.evidence import __main__ as command  # noqa: E402
from benchmarks.evidence import claims, page, running  # noqa: E402
from htaf_snn.compare import Settings  # noqa: E402

STUDIES = [claim for claim in claims.CLAIMS if isinstance(claim, claims.Claim)]


@pytest.mark.parametrize("claim", STUDIES, ids=lambda claim: claim.name)
def test_settings_are_valid_and_quick_ones_need_no_data(claim):
    for part in claim.studies:
        settings = Settings.of(**claim.studies[part])
        assert settings.seeds >= 5 and (settings.select == "val") != claim.suggests
        assert set(running.settings_of(claim, part, quick=True, data=None).dataset) <= set(running.OFFLINE)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A claim with the smallest studies."""
    tiny = {"dataset": "digits", "epochs": 1, "width": 4, "batch_size": 256, "depths": (1, 2), "seeds": 3}
    tiny |= {"lrs": (1e-3, 1e-2), "slopes": (1.0,), "surrogates": ("htaf", "atan", "relu"), "select_seeds": 1}
    claim = replace(claims.named("bnn"), quick=tiny | {"anneal": ("none",)})
    out = tmp_path_factory.mktemp("evidence")
    with workers_here():
        path = running.run(claim, quick=True, data=None, out=out, workers=1)
    return path, json.loads(path.read_text())


@pytest.mark.thorough
def test_results_have_all_that_their_page_needs(measured):
    path, result = measured
    assert path.name == "bnn-quick.json"
    assert result["command"] == "python -m benchmarks.evidence run bnn --quick"
    assert {"htaf-snn", "torch"} <= set(result["versions"]) and result["machine"]["cores"]
    [part] = result["parts"].values()
    assert len(part["table"]) == 6 and len(part["trials"]) == 2 * 3 * (2 + 2)
    assert part["data"]["train"] == 1293 and len(part["data"]["hash"]) == 16
    text = page.page([result])
    assert result["question"] in text and result["command"] in text and result["commit"] in text
    for row in part["table"]:
        assert f"| {row['depth']} | {row['surrogate']} | 2 | {row['mean']:.3f} |" in text
    assert page.short_table(part).count("\n") == 5
    assert len(page.findings(part)) == 2


def test_a_finding_names_its_numbers():
    row = {
        "dataset": "digits",
        "depth": 2,
        "anneal": "none",
        "identity": 0.0,
        "variant": "",
        "surrogate": "htaf",
        "claim": "baseline",
    }
    better = row | {"surrogate": "a", "claim": "better", "difference": 0.02}
    better |= {"difference_low": 0.011, "difference_high": 0.029}
    worse = better | {"surrogate": "c", "claim": "worse", "difference": -0.02}
    worse |= {"difference_low": -0.029, "difference_high": -0.011}
    unclear = row | {"surrogate": "b", "claim": "no difference shown"}
    settings = {"surrogates": ["htaf"], "anneal": ["none"], "identity": [0.0]}
    part = {"table": [row, better, worse, unclear], "settings": settings, "suggested_slope": None}
    expected = (
        "- 2 hidden layers. Better than `htaf`: `a` by 2.0 points (1.1 to 2.9). Worse than `htaf`: `c` by 2.0 points "
        "(1.1 to\n  2.9). No difference from `htaf` is shown for `b`."
    )
    assert page.findings(part) == [expected]


def test_a_suggestion_is_ranked_by_validation():
    rows = [{"slope": slope, "val_accuracy": value} for slope, value in ((0.5, 0.8), (1.0, 0.9), (0.7, 0.85))]
    text = "suggested slope, 0.7, is number 2 of 3: 0.850, where the best, 1, has 0.900."
    assert page.findings({"table": rows, "suggested_slope": 0.7}) == [f"- By mean validation accuracy the {text}"]
    missing = page.findings({"table": rows, "suggested_slope": 0.6})
    assert missing == ["- No trial at the suggested slope, 0.6, has finished."]


def test_tables_are_replaced(measured, tmp_path, monkeypatch):
    path, result = measured
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    (tmp_path / "bnn.json").write_text(path.read_text())
    before = "a\n<!-- evidence: bnn -->\nold\n<!-- end of evidence -->\nb\n"
    [part] = result["parts"].values()
    expected = f"a\n<!-- evidence: bnn -->\n\n{page.short_table(part)}\n<!-- end of evidence -->\nb\n"
    assert page.with_tables(before) == page.with_tables(expected) == expected


def test_what_pages_take_from_several_claims(tmp_path, monkeypatch):
    def row(surrogate, claim, **more):
        chosen = {
            "anneal": "none",
            "identity": 0.0,
            "variant": "",
            "place": "",
            "slope": 0.5,
            "lr": 1e-3,
            "val_accuracy": 0.5,
        }
        means = {"mean": 0.5, "low": 0.4, "high": 0.6}
        return {"dataset": "digits", "surrogate": surrogate, "claim": claim, "depth": 2, **means, **chosen, **more}

    settings = {"surrogates": ["htaf"], "anneal": ["none"], "identity": [0.0], "select_seeds": 1}
    rows = [row("htaf", "baseline"), row("htaf", "better", anneal="hardness", val_accuracy=0.7, slope=1.0)]
    for claim, other in (("dhn-paths", "better"), ("dhn-surrogates", "worse"), ("bnn", "better"), ("snn-depth", "?")):
        part = {"table": [*rows, row("atan", other), row("relu", "better")], "settings": settings}
        # The seeds that are reported, from 1 on, do not choose the path.
        part["trials"] = [
            own | {"seed": seed, "val_accuracy": value}
            for own, values in zip(rows, ((0.5, 0.9), (0.7, 0.1)), strict=True)
            for seed, value in enumerate(values)
        ]
        text = json.dumps({"parts": {"fashion-mnist": part, "saccade-digits": part}})
        (tmp_path / f"{claim}.json").write_text(text)
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    assert page.counts().startswith("Of 6 settings of data, kind of network and depth, HTAF is shown to be better than")
    assert "in 2, and worse in 2;" in page.counts().replace("\n", " ")
    assert "| binary | 2 | hardness annealed | 1 | 0 | 0.001 | `bnn` |" in page.defaults()
    monkeypatch.setattr(page, "_COMPARED", page._COMPARED[:3])
    lines = page.summary().splitlines()[2:]
    assert [line.replace(page._TO, " to ").partition("|")[2].split(" | ")[2:] for line in lines] == [
        ["0.500 (0.400 to 0.600)", "1: 0.500 to 0.500", *shown]
        for shown in (["`atan`", "none |"], ["none", "`atan` |"], ["none", "none |"])
    ]


def test_the_page_is_that_of_the_results():
    results = [json.loads((page.RESULTS / f"{claim.name}.json").read_text()) for claim in page.measured()]
    assert page.PAGE.read_text() == page.page(results)


@pytest.mark.parametrize("path", page.pages_with_tables(), ids=lambda path: str(path.relative_to(ROOT)))
def test_tables_are_those_of_the_results(path):
    assert path.read_text() == page.with_tables(path.read_text())


def test_every_page_with_a_table_is_found(tmp_path):
    (tmp_path / "docs" / "guide").mkdir(parents=True)
    table = "<!-- evidence: bnn -->\n<!-- end of evidence -->\n"
    texts = {"README.md": table, "docs/start.md": "`<!-- evidence: NAME -->`\n", "docs/guide/width.md": f"a\n{table}"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    found = [str(path.relative_to(tmp_path)) for path in page.pages_with_tables(tmp_path)]
    assert found == ["README.md", "docs/guide/width.md"]
    assert ROOT / "README.md" in page.pages_with_tables() and len(page.pages_with_tables()) > 3


@pytest.mark.parametrize("text", ["<!-- evidence: bnn -->\n", "<!-- end of evidence -->\n"])
def test_a_table_without_an_end_is_refused(text):
    with pytest.raises(ValueError, match="evidence: expected each table to be followed by its end"):
        page.with_tables(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "dhn"], "name: expected one of dhn-paths, "),
        (["run", "bnn"], "bnn: expected the folder fashion_mnist in --data DIR or HTAF_DATA, got no folder"),
    ],
)
def test_mistakes_are_named(arguments, message, monkeypatch):
    monkeypatch.delenv("HTAF_DATA", raising=False)
    monkeypatch.setattr(sys, "argv", ["evidence", *arguments])
    with pytest.raises((ValueError, OSError)) as error:
        command.main()
    assert message in str(error.value)


def test_claims_are_listed(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["evidence", "list"])
    command.main()
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [c.name for c in claims.CLAIMS]
