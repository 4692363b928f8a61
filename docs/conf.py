"""How Sphinx builds the documentation."""

from importlib.metadata import version as version_of

project = "django_jobs"
author = "the django-jobworker authors"
copyright = "2026, the django-jobworker authors"
version = release = version_of("django-jobworker")

extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
nitpicky = True

html_theme = "furo"
html_title = f"django_jobs {version}"
html_static_path = ["_static"]
html_css_files = ["docs.css"]
