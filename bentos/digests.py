"""Numbers that the same text always has, alike in every process."""

from __future__ import annotations

import hashlib


def digest_of(text: bytes) -> int:
    """64 bits."""
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def record_id(text: bytes) -> int:
    """A 63-bit id, never 0, of a record that `text` names."""
    return (digest_of(text) >> 1) or 1
