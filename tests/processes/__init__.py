"""Real workers, real signals, real databases."""
