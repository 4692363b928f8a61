"""The test suite: it mirrors the package, and runs once on every database."""
