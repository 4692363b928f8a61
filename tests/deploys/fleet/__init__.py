"""A project of which several releases run beside each other."""
