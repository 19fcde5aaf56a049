"""The files about the project: what a release needs, workflows, hooks and templates."""

import runpy
import shutil
import subprocess
from datetime import date

import pytest
import yaml
from test_imports import ROOT

import htaf_snn

release = runpy.run_path(str(ROOT / "tools" / "release.py"))
TODAY = date(2000, 1, 2)
SOURCE = "    Source = https://example.org\n"


@pytest.fixture
def project(tmp_path):
    """A repository with the project's files that a release reads, ready for a release on `TODAY`."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    (tmp_path / "htaf_snn").mkdir()
    for name in ("htaf_snn/__init__.py", "CITATION.cff", "setup.cfg"):
        shutil.copy(ROOT / name, tmp_path / name)
    change(tmp_path / "CITATION.cff", f"date-released: {dated(ROOT / 'CITATION.cff')}", f"date-released: {TODAY}")
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n## {htaf_snn.__version__} - {TODAY}\n")
    change(tmp_path / "setup.cfg", "project_urls =\n", f"project_urls =\n{SOURCE}")
    git(tmp_path, "init", "--quiet")
    commit(tmp_path)
    return tmp_path


def change(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def dated(path):
    return yaml.safe_load(path.read_text())["date-released"]


def git(folder, *arguments):
    who = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True)


def commit(folder):
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "All")


def obstacles(folder):
    return list(release["obstacles"](folder, TODAY))


def test_a_release_that_is_ready(project):
    assert obstacles(project) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("htaf_snn/__init__.py", '__version__ = "', '__version__ = "9.', "expected the first entry '9."),
        ("CHANGELOG.md", "## ", "## Unreleased\n\n## ", "got 'Unreleased'"),
        ("CHANGELOG.md", str(TODAY), "2000-01-01", "- 2000-01-01'"),
        ("CITATION.cff", "\nversion: ", "\nversion: 9.", "CITATION.cff: expected version"),
        ("CITATION.cff", str(TODAY), "2000-01-01", "'date-released': '2000-01-01'"),
        ("setup.cfg", SOURCE, "", "public address as Source in project_urls, got none"),
    ],
)
def test_what_stands_in_the_way_of_a_release(project, file, old, new, message):
    change(project / file, old, new)
    commit(project)
    assert message in "\n".join(obstacles(project))


def test_a_tree_with_changes_is_not_released(project):
    (project / "new.py").touch()
    assert obstacles(project) == ["git: expected nothing to commit, got\n?? new.py"]


def test_the_project_states_one_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    entry = next(line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("## "))
    assert release["version"]() == htaf_snn.__version__ == citation["version"]
    assert entry in ("## Unreleased", f"## {citation['version']} - {citation['date-released']}")


def test_the_citation_is_complete():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    [paper] = citation["references"]
    assert {"type", "title", "authors", "year"} <= paper.keys()
    assert paper["identifiers"][0]["value"] == "arXiv:2605.11558"


def workflows():
    return {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / ".github" / "workflows").glob("*.yml")}


def test_workflows_are_ones():
    assert set(workflows()) == {"tests", "docs", "release", "search"}
    for workflow in workflows().values():
        assert workflow["name"] and workflow[True]  # YAML reads the key "on" as true
        assert workflow["permissions"] == {"contents": "read"}
        for job in workflow["jobs"].values():
            assert job["runs-on"] and set(job.get("needs", "").split()) <= set(workflow["jobs"])
            for step in job["steps"]:
                assert ("run" in step) != ("uses" in step)
                assert "@" in step.get("uses", "@")


def commands(workflow):
    return [step["run"] for job in workflows()[workflow]["jobs"].values() for step in job["steps"] if "run" in step]


def test_workflows_run_what_the_pages_say():
    classifiers = (ROOT / "setup.cfg").read_text()
    versions = workflows()["tests"]["jobs"]["tests"]["strategy"]["matrix"]["python"]
    assert versions == ["3.11", "3.12", "3.13"]
    assert all(f"Python :: {version}\n" in classifiers for version in versions)
    local = (ROOT / ".ci" / "run").read_text().splitlines()
    assert {"ruff check .", "mypy", "pytest"} <= {*commands("tests")} & {*local}
    assert "python -m sphinx -W -b html docs docs/_build" in commands("docs")
    assert "python tools/release.py" in commands("release")


def test_hooks_run_the_tools_of_the_tests():
    [repository] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    entries = [hook["entry"].partition(" --")[0] for hook in repository["hooks"]]
    assert repository["repo"] == "local" and entries == ["ruff check", "ruff format", "mypy"]
    assert all(hook["language"] == "system" for hook in repository["hooks"])


def test_forms_of_issues_have_what_they_need():
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text())
        assert form["name"] and form["description"]
        assert all(part["type"] == "textarea" and part["attributes"]["label"] for part in form["body"])
        assert len({part["id"] for part in form["body"]}) == len(form["body"])
