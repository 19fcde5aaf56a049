"""Check that the project can be released, build it, and try what was built in empty environments."""

from __future__ import annotations

import argparse
import ast
import configparser
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from sysconfig import get_path

ROOT = Path(__file__).parents[1]
EXAMPLES = """examples:
  python tools/release.py --check     say what stands in the way of a release, and build nothing
  python tools/release.py             check, build into dist/, and try both files with their dependencies
  python tools/release.py --offline   the same with the dependencies of this environment
"""
# The gradient of HTAF at 0 is αβ/4, which is 1 by default.
TRIAL = """
import torch, htaf_snn
x = torch.tensor([-1.0, 0.0, 1.0], requires_grad=True)
spikes = htaf_snn.functional.spike(x, "htaf")
spikes.sum().backward()
assert spikes.tolist() == [0, 0, 1] and x.grad[1] == 1, (spikes, x.grad)
print(htaf_snn.__version__, htaf_snn.__file__)
"""


class ReleaseError(Exception):
    """A reason not to release."""


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Run a command without this process's modules and return what it prints; raise ReleaseError if it fails."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise ReleaseError(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def version(root: Path = ROOT) -> str:
    """Return the version that the package states, without importing it."""
    for node in ast.parse((root / "htaf_snn" / "__init__.py").read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__":
            return ast.literal_eval(node.value)
    raise ReleaseError("htaf_snn/__init__.py: expected __version__, got none")


def obstacles(root: Path = ROOT, today: date | None = None) -> Iterator[str]:
    """Yield what stands in the way of a release."""
    expected = f"{version(root)} - {today or date.today()}"
    heading = re.search(r"^## (.+)$", (root / "CHANGELOG.md").read_text(), re.MULTILINE)
    if heading is None or heading[1] != expected:
        yield f"CHANGELOG.md: expected the first entry {expected!r}, got {heading and heading[1]!r}"
    citation = dict(re.findall(r"^(version|date-released): (.+)$", (root / "CITATION.cff").read_text(), re.MULTILINE))
    if f"{citation.get('version')} - {citation.get('date-released')}" != expected:
        yield f"CITATION.cff: expected version and date-released {expected!r}, got {citation}"
    settings = configparser.ConfigParser()
    settings.read(root / "setup.cfg")
    if not re.search(r"^Source = ", settings["metadata"].get("project_urls", ""), re.MULTILINE):
        yield "setup.cfg: expected the project's public address as Source in project_urls, got none"
    if changed := run("git", "status", "--porcelain", cwd=root):
        yield f"git: expected nothing to commit, got\n{changed.rstrip()}"


def build(folder: Path, offline: bool = False) -> list[Path]:
    """Build the sdist, and the wheel from it, into a folder; return the wheel and the sdist."""
    run(sys.executable, "-m", "build", "--outdir", folder, *(["--no-isolation"] if offline else []))
    return [*folder.glob(f"*-{version()}*.whl"), *folder.glob(f"*-{version()}.tar.gz")]


def try_out(archive: Path, offline: bool = False) -> None:
    """Install a file in an empty environment and use it there; offline, with this environment's other packages."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        venv.create(folder, symlinks=True)
        programs = folder / ("Scripts" if os.name == "nt" else "bin")
        options = []
        if offline:
            site = Path(get_path("purelib", vars={"base": temporary}))
            others = [path for path in sys.path if Path(path).name == site.name]
            (site / "others.pth").write_text("\n".join(others))
            options = ["--no-deps", "--no-build-isolation", "--ignore-installed"]
        run(sys.executable, "-m", "pip", "--python", programs / "python", "install", *options, archive)
        stated, home = run(programs / "python", "-c", TRIAL, cwd=folder).split(maxsplit=1)
        if stated != version() or folder.resolve() not in Path(home.strip()).resolve().parents:
            raise ReleaseError(f"{archive.name}: expected version {version()} in {folder}, got {stated} in {home}")
        for option, text in (("--help", "train"), ("--version", version())):
            if text not in run(programs / "htaf-snn", option, cwd=folder):
                raise ReleaseError(f"{archive.name}: expected {text!r} from htaf-snn {option}")


def release(offline: bool) -> None:
    """Build into dist/ and try both files."""
    folder = ROOT / "dist"
    shutil.rmtree(folder, ignore_errors=True)
    archives = build(folder, offline)
    run(sys.executable, "-m", "twine", "check", "--strict", *archives)
    for archive in archives:
        try_out(archive, offline)
        print(f"{archive.relative_to(ROOT)}: built, installed and tried")


def main() -> None:
    """Run the command; obstacles and failures go to standard error, with exit code 1."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="check only")
    parser.add_argument("--offline", action="store_true", help="take dependencies and setuptools from here")
    arguments = parser.parse_args()
    try:
        if reasons := list(obstacles()):
            raise ReleaseError("\n".join(reasons))
        if not arguments.check:
            release(arguments.offline)
    except ReleaseError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
