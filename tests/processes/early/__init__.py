"""An app that uses the database, and starts a thread, before children are made.

It does so in the worker and in the process that forks its children alike: both load
the project. ``EARLY`` names what is to be done.
"""
