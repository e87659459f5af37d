"""How the documentation is built: `sphinx-build -W docs docs/_build`.

Everything is made from what is in the repository: tutorials are the notebooks, the gallery the scripts in
examples/plot_*.py, the reference the docstrings of every public name. No page asks another host for anything.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "_ext")]

import reference  # noqa: E402
import tutorials  # noqa: E402
from gallery_figures import FigureScraper  # noqa: E402

import tinygrad_opt  # noqa: E402

project, author, version = "tinygrad_opt", "The tinygrad_opt authors", tinygrad_opt.__version__
release, copyright = version, "The tinygrad_opt authors, MIT licence"

extensions = ["sphinx.ext.autodoc", "numpydoc", "sphinx.ext.mathjax", "sphinx-mathjax-offline", "myst_nb",
              "sphinx_design", "sphinx_copybutton", "sphinx_gallery.gen_gallery", "reference"]
exclude_patterns = ["_build", "_ext", "_made", "jupyter_execute", "gallery/*.ipynb", "gallery/*.py",
                    "gallery/sg_execution_times.rst", "sg_execution_times.rst"]
default_role = "code"                                           # a single backtick is code, as in the docstrings
suppress_warnings = ["config.cache"]

# ---- words ----------------------------------------------------------------------------------------------------------

autodoc_default_options = {"members": True, "member-order": "bysource",
                           "exclude-members": "set_fit_request, set_partial_fit_request, set_score_request"}
autodoc_typehints = "none"                                      # the docstrings say it in words
numpydoc_show_class_members = False
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_fence_as_directive = ["math"]
myst_heading_anchors = 3
nb_execution_mode = "off"                                       # tutorials.py has executed them
nb_merge_streams, nb_output_stderr = True, "remove"
copybutton_prompt_text, copybutton_prompt_is_regexp = r">>> |\.\.\. |\$ ", True

# ---- looks ----------------------------------------------------------------------------------------------------------

html_extra_path = ["_made"]
html_theme, html_title = "pydata_sphinx_theme", "tinygrad_opt"
html_static_path, html_css_files = ["_static"], ["style.css"]
html_theme_options = {
    "show_prev_next": False, "navigation_with_keys": False, "secondary_sidebar_items": ["page-toc"],
    "pygments_light_style": "a11y-high-contrast-light", "pygments_dark_style": "a11y-high-contrast-dark",
    "footer_start": ["copyright"], "footer_end": [], "navbar_align": "left",
}
html_show_sourcelink, html_copy_source = False, False

sphinx_gallery_conf = {
    "examples_dirs": [str(ROOT / "examples")], "gallery_dirs": ["gallery"], "filename_pattern": r"plot_",
    "ignore_pattern": r"(^|/)(?!plot_)[^/]*\.py$", "image_scrapers": [FigureScraper()],
    "capture_repr": ("_repr_html_", "__repr__"), "matplotlib_animations": False, "show_memory": False,
    "remove_config_comments": True, "reset_modules": (), "min_reported_time": 10, "download_all_examples": False,
}


def setup(app):
    """Prepare what is not kept in the repository."""
    tutorials.execute(ROOT / "notebooks", ROOT / "docs" / "tutorials")
    reference.write(ROOT / "docs" / "reference")
    made = ROOT / "docs" / "_made" / "race.html"                # a page that runs by itself, the library's own export
    made.parent.mkdir(exist_ok=True)
    tinygrad_opt.lab.race(["sgd", ("sgd", dict(momentum=0.9)), "adam", "rmsprop", "lion"], "himmelblau", 100,
                          start=[-0.5, -1.0]).to_html(made)
