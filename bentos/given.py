"""Numbers, texts and ids as requests give them. An id has either form; any other is refused in one sentence."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PlainValidator
from pydantic_core import PydanticCustomError

Int64 = Annotated[int, Field(strict=True, ge=-(2**63), le=2**63 - 1)]
"""What arrays and stores can hold."""

UnixMs = Annotated[int, Field(strict=True, ge=0, le=253_402_300_799_999)]
"""Milliseconds since 1970 UTC, before the year 10000."""

MAX_TEXT = 512
"""Characters of one id or name of a request."""

GivenText = Annotated[str, Field(max_length=MAX_TEXT)]


def _given_id(value: object) -> int | str:
    """A whole number or a text that is not too long; what is neither is named by its kind alone."""
    if isinstance(value, str):
        if len(value) <= MAX_TEXT:
            return value
        kind = f"text of {len(value)} characters"
    elif isinstance(value, int) and not isinstance(value, bool):
        return value
    else:
        kind = _KINDS.get(type(value), "something else")
    told = "must be a whole number or text of at most {most} characters, not {kind}"
    raise PydanticCustomError("id", told, {"most": MAX_TEXT, "kind": kind})


_KINDS = {type(None): "null", bool: "a boolean", float: "a fraction", list: "a list", dict: "an object"}

GivenId = Annotated[int | str, PlainValidator(_given_id, json_schema_input_type=int | GivenText)]
"""An id as a request names it. Numbers out of range are refused by name (BadId)."""
