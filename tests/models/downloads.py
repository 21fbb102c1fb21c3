"""A file to be downloaded, its names in the cache, and a download that loses patience soon."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

from resdeploy.contracts import silent
from resdeploy.models.weights.download import fetch_url
from resdeploy.models.weights.transfer import MIB, Patience
from tests.models.loopback import Watched

BODY = random.Random(0).randbytes(3 * MIB + 70_000)
HASH = hashlib.sha256(BODY).hexdigest()
NAME = f"weights-{HASH[:8]}.pth"
PARTIAL = f"{NAME}.{HASH[:8]}.partial"
HASTY = Patience(timeout_s=0.3, slowest_bytes_per_s=1e6, waits_s=(0.01, 0.01))


def fetch(url: str, progress: Watched | None = None, patience: Patience = HASTY) -> Path:
    return fetch_url(
        url, sha256=None, progress=progress or silent, offline=False, patience=patience
    )


def left(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir())
