"""Settings of the tests, with servers that soon end a session that does nothing."""

from copy import deepcopy
from typing import Any

from tests.processes.early import settings
from tests.processes.early.settings import *  # noqa: F403

#: Seconds.
IDLE = 2


def forget(options: dict[str, Any], vendor: str) -> None:
    """Add to the options of a driver."""
    if vendor == "mysql":
        options["init_command"] = f"SET SESSION wait_timeout = {IDLE}"
    elif vendor == "postgresql":
        options["options"] = f"-c idle_session_timeout={IDLE * 1000}"


# A copy: those who import this may have settings of their own.
DATABASES = deepcopy(settings.DATABASES)
for each in DATABASES.values():
    forget(each["OPTIONS"], each["ENGINE"].rpartition(".")[2])
