"""What every record is: immutable, without unknown fields; and a document, a file of its own."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Record(BaseModel):
    """Base of everything below: immutable, no unknown fields, NaN and infinity kept as such."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", ser_json_inf_nan="constants", populate_by_name=True
    )


class Document(Record):
    """A record that is a file of its own."""

    schema_version: Literal[1] = Field(default=1, alias="schema")

    def to_json(self) -> str:
        """The document as indented JSON with a final newline."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"
