"""Data references in, batches of preprocessed images with their ids out.

Enters: a folder, an archive, `synthetic:N` or `embedded:NAME`, and a `Preprocess`.
Leaves: `Batch`es in a fixed order, one at a time, and the facts and content hashes of
what they were made from. Nothing here knows what the images are for.
"""

from __future__ import annotations

from typing import Any

from resdeploy.table import lazy

_PUBLIC = {
    "decode": "resdeploy.data.images:decode",
    "preprocessed": "resdeploy.data.images:preprocessed",
    "FolderSource": "resdeploy.data.folder:FolderSource",
    "NpzSource": "resdeploy.data.npz:NpzSource",
    "SyntheticSource": "resdeploy.data.synthetic:SyntheticSource",
    "EMBEDDED": "resdeploy.data.sources:EMBEDDED",
    "embedded_source": "resdeploy.data.sources:embedded_source",
    "source_from_reference": "resdeploy.data.sources:source_from_reference",
    "refuse_calibrated": "resdeploy.data.audit:refuse_calibrated",
    "refuse_overlap": "resdeploy.data.audit:refuse_overlap",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    return lazy(__name__, _PUBLIC, name)
