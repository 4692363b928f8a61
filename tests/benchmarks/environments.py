"""A virtual environment for each peer, in a folder that is given or temporary."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.peers.base import Peer

ROOT = Path(__file__).resolve().parent.parent.parent
INSTALL_SECONDS = 600

_VERSIONS = """
import json, platform, sys
from importlib.metadata import version
found = {name: version(name) for name in sys.argv[1:]}
print(json.dumps({**found, "Python": platform.python_version()}))
"""


@dataclass(frozen=True)
class Environment:
    """Where the programs of one peer are."""

    programs: Path

    def program(self, name: str) -> str:
        return str(self.programs / name)

    def versions(self, *names: str) -> dict[str, str]:
        command = [self.program("python"), "-c", _VERSIONS, *names]
        found = subprocess.run(command, capture_output=True, text=True, check=True)
        versions: dict[str, str] = json.loads(found.stdout)
        return versions


def install(peer: Peer, cache: Path, python: str) -> Environment:
    """Make the environment of a peer, unless it is there with the same contents."""
    folder = cache / peer.module
    wanted = [each.format(root=ROOT) for each in peer.requirements]
    marker = folder / "installed.json"
    if not marker.exists() or json.loads(marker.read_text()) != wanted:
        _run([python, "-m", "venv", "--clear", str(folder)])
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        _run([*pip, *wanted])
        marker.write_text(json.dumps(wanted))
    return Environment(folder / "bin")


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, timeout=INSTALL_SECONDS)
