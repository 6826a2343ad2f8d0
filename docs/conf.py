"""Configuration of Sphinx for these pages."""

import re
import sys
from pathlib import Path

from aslkit.batch.worker_process import collect_garbage_rarely

sys.path.insert(0, str(Path(__file__).parent))
collect_garbage_rarely()
import built  # noqa: E402

project = "aslkit"
html_title = "aslkit"
html_theme = "furo"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]
highlight_language = "none"
html_show_copyright = False
smartquotes = False  # would replace the two dashes of an option by one
default_role = "code"
myst_heading_anchors = 3
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 80
nitpicky = True
nitpick_ignore_regex = [("py:(class|exc)", ".*")]  # types of other packages, and types in words

ARRAY = re.compile(
    r"~?(?:numpy\.)?ndarray\[tuple\[.*?\], ~?(?:numpy\.)?dtype\[~?(?:numpy\.)?(\w+)\]\]"
)


def shorten(*event):
    """Shorten the type of an array in a signature to `ndarray[float32]`."""
    signature, returned = event[-2:]
    return tuple(text and ARRAY.sub(r"ndarray[\1]", text) for text in (signature, returned))


def setup(app):
    """Connect the functions that change the pages while they are built."""
    app.connect("source-read", built.fill)
    app.connect("autodoc-process-signature", shorten)
