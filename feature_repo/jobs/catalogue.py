"""What pins say: content rows and the first row of every pin's counters, true from the pin's creation on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from feature_repo.jobs.files import write
from feature_repo.schema import PIN_SCALARS, PIN_TOPICS
from feature_repo.views import PIN_CONTENT, PIN_STATS

if TYPE_CHECKING:
    import duckdb

PIN_BASE = f"""
CREATE OR REPLACE TEMP TABLE pin_base AS
SELECT pin_id,
       created_at,
       epoch_us(created_at) // 1000 AS created_at_ms,
       list_resize(coalesce(topics, []), {PIN_TOPICS}, 0) AS topics,
       coalesce(topics, []) AS all_topics,
       len(coalesce(topics, []))::FLOAT AS topic_count,
       len(regexp_extract_all(coalesce(title, ''), '\\S+'))::FLOAT AS title_words,
       len(regexp_extract_all(coalesce(description, ''), '\\S+'))::FLOAT AS description_words,
       (coalesce(image, '') <> '')::INT::FLOAT AS has_image
FROM pins
"""
"""What the ranker reads of a pin that no action changes."""

STATIC = ("topic_count", "title_words", "description_words", "has_image")


def pin_base(db: duckdb.DuckDBPyConnection) -> None:
    """Makes table `pin_base`, one row a pin."""
    db.execute(PIN_BASE)


def pin_content(db: duckdb.DuckDBPyConnection, out: Path) -> int:
    """Writes `pin_content`; returns its rows. A pin's content is known from its creation on."""
    table = db.sql(
        """
        SELECT pin_id, title, description, link_domain, image, coalesce(topics, []) AS topics,
               created_at AS event_timestamp, created_at AS created
        FROM pins
        """
    ).to_arrow_table()
    return write(out, PIN_CONTENT, "pins", table)


def first_pin_rows(db: duckdb.DuckDBPyConnection, out: Path) -> int:
    """Writes the counters that each pin starts with, all zero, from its creation on; returns the rows."""
    counters = ", ".join(f"0::FLOAT AS {name}" for name in PIN_SCALARS if name not in STATIC)
    table = db.sql(
        f"""
        SELECT pin_id, {counters}, {", ".join(STATIC)}, created_at_ms, topics,
               created_at AS event_timestamp, created_at AS created
        FROM pin_base
        """
    ).to_arrow_table()
    return write(out, PIN_STATS, "created", table)
