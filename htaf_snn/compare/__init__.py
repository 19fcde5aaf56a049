"""Fair comparison of surrogates: trained side by side over seeds, with statistics and a report.

Example:
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> study = Study(folder.name, surrogates=["htaf", "atan"], seeds=1, epochs=1, width=8, n_time_bins=2)
    >>> study.run(workers=1, progress=False)
    {'waiting': 0, 'running': 0, 'finished': 2, 'failed': 0}
    >>> study.table()[0]["surrogate"], study.report().name
    ('htaf', 'report.html')
    >>> folder.cleanup()
"""

from .presets import PRESETS, preset
from .settings import Settings
from .study import Study

__all__ = ["PRESETS", "Settings", "Study", "preset"]
