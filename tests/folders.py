"""The project's folder, and those of real data."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def real_data(name):
    """Return the folder of these real recordings or images, or skip."""
    folder = Path(os.environ.get("HTAF_DATA", ROOT.parent / "shared" / "data")) / name
    if not folder.is_dir():
        pytest.skip(f"real data is missing: no folder {folder}; set HTAF_DATA")
    return folder
