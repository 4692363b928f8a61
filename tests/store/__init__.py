"""The contract of the store, the same on every database."""
