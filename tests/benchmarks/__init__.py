"""Us and the peers: the same work, the same faults, the same machine."""
