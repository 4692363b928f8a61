"""A library of Python source files, measured by background tasks."""
