"""What the one who measures says to a process: one JSON object in the environment."""

import json
import os
from typing import Any

GIVEN: dict[str, Any] = json.loads(os.environ["BENCHMARK"])
