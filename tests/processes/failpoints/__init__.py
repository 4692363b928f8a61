"""Something breaks at each of the points: a kill, a stop, an error, a cut."""
