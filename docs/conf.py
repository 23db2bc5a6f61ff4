"""The site of these pages: `make docs`. What the pages are, and their order, stands in `index.md`.

Sphinx, pydata-sphinx-theme and MyST. Nothing is loaded from elsewhere: formulas become MathML, the search is a file.
"""

import importlib.metadata
from pathlib import Path
import sys

sys.path.insert(0, str(Path(__file__).parent / "site"))

project = "sobofem"
author = copyright = "The sobofem developers"
release = version = importlib.metadata.version("sobofem")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "formulas",
    "gallery",
    "reference",
    "elsewhere",
]
root_doc = "index"
exclude_patterns = ["site"]
templates_path = ["site/templates"]
default_role = "literal"
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header"]  # the changelog's parts begin where they do

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_maximum_signature_line_length = 140
math_number_all = False

html_theme = "pydata_sphinx_theme"
html_title = "sobofem"
html_static_path = ["site/static"]
html_css_files = ["site.css"]
html_sidebars = {"**": ["everything.html"]}
html_show_sourcelink = False
html_show_search_summary = False  # it reads pages again, which browsers refuse to do from a disk
html_math_renderer = "mathml"
html_theme_options = {
    "navbar_align": "left",
    "navbar_center": [],
    "show_prev_next": True,
    "navigation_with_keys": False,
    "show_nav_level": 1,
    "navigation_depth": 2,
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
