"""The worker of the demo is a process with a log."""

from pathlib import Path

from library import worker


def test_the_log_of_an_earlier_worker_is_kept(tmp_path: Path) -> None:
    script = tmp_path / "manage.py"
    script.write_text("print('started')\n")
    log = tmp_path / "worker.log"
    for _ in range(2):
        worker.Worker(script, log, []).process.wait(30)
    assert log.read_text().splitlines() == ["started", "started"]
