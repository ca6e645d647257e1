"""What a trial that has finished leaves behind, with nothing measured."""

from __future__ import annotations

FINISHED = '{"metrics": {}, "identity": {}, "training": {}, "tags": {}}'
"""The smallest `result.json` that counts as one."""
