"""A module of a project that cannot be loaded in the process of the children."""

import sys

if "jobworker" not in sys.argv:
    raise ImportError("this module is broken below the worker")
