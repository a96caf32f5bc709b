"""Settings of the site that ``python3 dev.py docs`` makes: Sphinx over the pages as they stand, README included."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from BrainFusionLib.version import __version__  # noqa: E402

project = "BrainFusion"
author = "BrainFusion contributors"
copyright = "BrainFusion contributors, Apache 2.0"  # noqa: A001  (Sphinx's name)
version = release = __version__

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc"]
root_doc = "docs/index"
include_patterns = [
    "docs/*.md", "docs/*/**.md", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "CODE_OF_CONDUCT.md",
]  # fmt: skip
source_suffix = {".md": "markdown"}
myst_heading_anchors = 4
# The pages are GitHub's Markdown: a diagram in Mermaid is shown as its text.
suppress_warnings = ["misc.highlighting_failure"]
autosummary_generate = False  # numpydoc loads it
numpydoc_show_class_members = False
autodoc_typehints = "none"  # the docstrings say it
autodoc_member_order = "bysource"
smartquotes_action = "qe"  # an option keeps its two dashes
html_theme = "alabaster"
html_static_path = ["_static"]  # custom.css, which the theme loads
html_theme_options = {"description": "CT and MRI in one volume, and how far to trust it", "page_width": "1100px"}
html_show_sourcelink = False
