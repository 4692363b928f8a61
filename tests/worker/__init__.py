"""The parts of the worker, one by one."""
