"""Commands run in this process, as a shell would run them."""

import contextlib
import io
from dataclasses import dataclass

from htaf_snn.cli import main


@dataclass
class Finished:
    """What a command has printed, and its exit code."""

    stdout: str
    stderr: str
    exit_code: int

    @property
    def output(self):
        return self.stdout + self.stderr


def run(*arguments):
    """Run `htaf-snn` with these arguments."""
    out, err = io.StringIO(), io.StringIO()
    code = None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([*map(str, arguments)])
        except SystemExit as exit_:
            code = exit_.code
    return Finished(out.getvalue(), err.getvalue(), code or 0)
