"""How Sphinx builds these pages."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import built  # noqa: E402

project = "aslkit"
html_title = "aslkit"
html_theme = "furo"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]
highlight_language = "none"
myst_heading_anchors = 3
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_preserve_defaults = True
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!aslkit\.).*")]  # words of docstrings are no references


def setup(app):
    """Fill pages with what the package knows."""
    app.connect("source-read", built.fill)
