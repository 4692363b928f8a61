"""Writes to an SQLite file and checkpoints its log, until it is killed."""

from __future__ import annotations

import sqlite3
import sys


def main() -> None:
    connection = sqlite3.connect(sys.argv[1], timeout=20, isolation_level=None)
    connection.execute("CREATE TABLE IF NOT EXISTS chaos_written (number INTEGER)")
    while True:
        connection.execute("INSERT INTO chaos_written VALUES (1)")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


if __name__ == "__main__":
    main()
