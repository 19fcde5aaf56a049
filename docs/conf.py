"""The site: `python -m sphinx -W --keep-going -b html docs docs/_build/html`."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_extensions"), str(HERE.parent)]

import htaf_snn  # noqa: E402

project = "htaf-snn"
author = "the authors of htaf-snn"
version = release = htaf_snn.__version__
html_title = f"htaf-snn {release}"
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_copyright = False
exclude_patterns = ["_build", "jupyter_execute"]

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "myst_nb",
    "mathml",
    "docstrings",
    "pages",
]

myst_enable_extensions = ["dollarmath", "colon_fence", "attrs_inline"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # the notebooks are shown with the outputs that they are stored with
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_math_renderer = "mathml"
default_role = "code"
maximum_signature_line_length = 110
python_use_unqualified_type_names = True
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
autodoc_type_aliases = {"SurrogateLike": "htaf_snn.surrogate.SurrogateLike"}
autodoc_inherit_docstrings = False
autodoc_default_options = {"members": True, "member-order": "bysource"}
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_custom_sections = ["Forward formula", "Gradient formula", "Shape", "Reference"]
