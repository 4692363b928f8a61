"""Black-box chaos: real workers, real servers, real faults, and a checker.

``python -m tests.processes.chaos --database URL --seconds N --seed S`` builds a small
site (servers, workers, producers), breaks it in all the ways of ``faults``, heals it,
lets it come to rest and counts every task. One line of JSON tells what came out.
"""
