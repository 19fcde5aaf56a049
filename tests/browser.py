"""Pages opened in headless Chromium."""

import html
import json
import re
import shutil
import subprocess

import pytest


def chromium():
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("Chromium is not installed")
    return found


def probe(page, script, folder, width=500):
    """What the body of an async function finds on a page; its console must stay empty."""
    end = (
        f"<script>(async () => {{ {script} }})().then(found => {{ document.title = JSON.stringify(found); }})</script>"
    )
    probed = folder / "probed.html"
    probed.write_text(page.replace("</body>", f"{end}</body>"))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", f"--window-size={width},900"]
    command = [chromium(), *options, "--virtual-time-budget=20000", f"--user-data-dir={folder}", "--dump-dom"]
    run = subprocess.run([*command, probed.as_uri()], capture_output=True, text=True, timeout=120)
    assert "CONSOLE" not in run.stderr, run.stderr
    return json.loads(html.unescape(re.search("<title>(.*)</title>", run.stdout)[1]))
