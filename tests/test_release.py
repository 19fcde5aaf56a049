"""The files of a release: what they contain, and that they work in an empty environment."""

import runpy
import subprocess
import tarfile
import zipfile

import pytest
from test_imports import ROOT

pytest.importorskip("build", reason="build is not installed")
pytestmark = pytest.mark.thorough
release = runpy.run_path(str(ROOT / "tools" / "release.py"))


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """The wheel and the sdist."""
    return release["build"](tmp_path_factory.mktemp("dist"), offline=True)


def test_the_wheel_has_the_packages_alone(archives):
    names = zipfile.ZipFile(archives[0]).namelist()
    information = f"htaf_snn-{release['version']()}.dist-info"
    assert {name.partition("/")[0] for name in names} == {"htaf_snn", "neuromorphic_datasets", information}
    files = tracked("htaf_snn") | tracked("neuromorphic_datasets")
    assert {name for name in names if not name.startswith(information)} == files - {"htaf_snn/kernels/README.md"}


def test_the_sdist_has_every_file_of_the_project(archives):
    names = {name.partition("/")[2] for name in tarfile.open(archives[1]).getnames()}
    assert tracked() - names == set()
    assert not [name for name in names if "__pycache__" in name or name.startswith("docs/_build")]


def tracked(folder="."):
    """Return the project's files below a folder."""
    try:
        listed = subprocess.run(["git", "ls-files", folder], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is no repository")
    return set(listed.stdout.split())


@pytest.mark.parametrize("kind", [0, 1], ids=["wheel", "sdist"])
def test_an_empty_environment_can_use_it(archives, kind):
    release["try_out"](archives[kind], offline=True)


def test_a_file_that_does_not_work_is_refused(archives, tmp_path):
    broken = tmp_path / archives[0].name
    with zipfile.ZipFile(archives[0]) as wheel, zipfile.ZipFile(broken, "w") as other:
        for name in wheel.namelist():
            if not name.startswith("htaf_snn/functional/"):
                other.writestr(name, wheel.read(name))
    with pytest.raises(release["ReleaseError"], match=r"No module named 'htaf_snn\.functional'"):
        release["try_out"](broken, offline=True)
