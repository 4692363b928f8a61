"""The module that workers look for: it brings in the tasks of the peer in question."""

from importlib import import_module

from tests.benchmarks.inside.given import GIVEN

PEER = import_module(f"tests.benchmarks.inside.{GIVEN['module']}")
