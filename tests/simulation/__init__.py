"""Workers and operators interleaved statement by statement, as a seed says.

``python -m tests.simulation --help`` tells how to run it. From the bottom up:

* ``clock``: the time that the database tells, moved by hand.
* ``database``: the store under test on it; which connection waits for another.
* ``turns``: threads that make each call to the database only when they are let.
* ``rows``: what is in the tables.
* ``model``: what may become of a task, told independently of the store.
* ``job``, ``endings``, ``jobs``: what workers and operators do, and which changes each
  of them explains.
* ``cast``: who does what next: workers as they behave, and operators as they please.
* ``scene``: jobs on their way, one statement after another.
* ``play``: one seed, from the first task to the last one that has ended.
* ``mutants``: faults of the store that must be found.
"""
