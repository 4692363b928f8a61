"""A module of a project that takes long to load in the process of the children."""

import sys
import time

if "jobworker" not in sys.argv:
    time.sleep(3)
