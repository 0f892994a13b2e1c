"""The one way in which a command prints a JSON document."""

import json
import sys
from typing import Any


def print_json(document: Any) -> None:
    """Write one JSON document to stdout."""
    sys.stdout.write(json.dumps(document, indent=2, default=str, allow_nan=False) + "\n")
