"""Topics and boards as they stand at one midnight: popular pins by topic, newest pins by board."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from feature_repo.jobs.database import between, days_of, literal
from feature_repo.jobs.files import write
from feature_repo.schema import BOARD_RECENT, TOPIC_POPULAR
from feature_repo.views import BOARD_FEATURES, TOPIC_FEATURES

if TYPE_CHECKING:
    import duckdb

    from validation.lake import Lake

POPULAR_DAYS = 30
HALF_LIFE_DAYS = 7.0
"""A positive action counts half after a week: popular means lately."""


def topics(db: duckdb.DuckDBPyConnection, lake: Lake, out: Path, as_of: datetime) -> int:
    """Writes `topic_features` at midnight `as_of`; returns its rows.

    A pin counts for its topics, for their ancestors, and for topic 0, the whole catalogue. Its score is the
    number of its distinct positive users a day, halved each week; lists shorter than TOPIC_POPULAR are filled
    with the newest pins at score 0, so that a topic without engagement still has an answer.
    """
    days_of(db, lake, "actions", between(as_of - timedelta(days=POPULAR_DAYS), as_of))
    now = literal(as_of)
    age_days = f"(epoch({now}) - epoch(date_trunc('day', timestamp))) / 86400 - 1"
    table = db.sql(
        f"""
        WITH RECURSIVE known AS (
            SELECT pin_id, created_at, unnest(all_topics) AS topic_id FROM pin_base WHERE created_at < {now}
        ),
        above(topic_id, ancestor) AS (
            SELECT topic_id, topic_id FROM (SELECT DISTINCT topic_id FROM known)
            UNION
            SELECT a.topic_id, t.parent_id FROM above a JOIN topics t ON t.topic_id = a.ancestor
            WHERE t.parent_id IS NOT NULL AND t.parent_id <> 0
        ),
        member AS (
            SELECT DISTINCT pin_id, created_at, ancestor AS topic_id FROM known JOIN above USING (topic_id)
            UNION ALL
            SELECT pin_id, created_at, 0 FROM pin_base WHERE created_at < {now}
        ),
        daily AS (
            SELECT pin_id,
                   count(DISTINCT user_id) * power(0.5, any_value({age_days}) / {HALF_LIFE_DAYS}) AS score
            FROM actions WHERE is_positive(action) AND timestamp < {now}
            GROUP BY pin_id, date_trunc('day', timestamp)
        ),
        scored AS (SELECT pin_id, sum(score)::FLOAT AS score FROM daily GROUP BY pin_id),
        ranked AS (
            SELECT topic_id, pin_id, coalesce(score, 0)::FLOAT AS score,
                   count(*) OVER (PARTITION BY topic_id) AS pins,
                   row_number() OVER (PARTITION BY topic_id
                                      ORDER BY coalesce(score, 0) DESC, created_at DESC, pin_id) AS place
            FROM member LEFT JOIN scored USING (pin_id)
        ),
        lists AS (
            SELECT topic_id, any_value(pins) AS pin_count,
                   list(pin_id ORDER BY place) AS popular_pin_ids, list(score ORDER BY place) AS popular_scores
            FROM ranked WHERE place <= {TOPIC_POPULAR} GROUP BY topic_id
        ),
        every AS (SELECT topic_id FROM topics UNION SELECT topic_id FROM lists UNION SELECT 0)
        SELECT e.topic_id, coalesce(l.pin_count, 0) AS pin_count, coalesce(t.parent_id, 0) AS parent_id,
               coalesce(l.popular_pin_ids, []) AS popular_pin_ids,
               coalesce(l.popular_scores, []) AS popular_scores,
               {now} AS event_timestamp, {now} AS created
        FROM every e LEFT JOIN lists l USING (topic_id) LEFT JOIN topics t USING (topic_id)
        ORDER BY e.topic_id
        """
    ).to_arrow_table()
    return write(out, TOPIC_FEATURES, f"{as_of:%Y-%m-%d}", table)


def boards(db: duckdb.DuckDBPyConnection, lake: Lake, out: Path, as_of: datetime) -> int:
    """Writes `board_features` at midnight `as_of`; returns its rows.

    A board holds the pins of positive actions that name it, each once, by its latest such action.
    """
    days_of(db, lake, "actions", [day for day in lake.days("actions") if day < as_of.date()])
    now = literal(as_of)
    table = db.sql(
        f"""
        WITH member AS (
            SELECT board_id, pin_id, max(timestamp) AS latest FROM actions
            WHERE board_id IS NOT NULL AND is_positive(action) AND timestamp < {now} GROUP BY board_id, pin_id
        ),
        ranked AS (
            SELECT *, count(*) OVER (PARTITION BY board_id) AS pins,
                   row_number() OVER (PARTITION BY board_id ORDER BY latest DESC, pin_id) AS place
            FROM member
        ),
        lists AS (
            SELECT board_id, any_value(pins) AS pin_count, list(pin_id ORDER BY place) AS recent_pin_ids
            FROM ranked WHERE place <= {BOARD_RECENT} GROUP BY board_id
        ),
        every AS (SELECT board_id FROM boards UNION SELECT board_id FROM lists UNION SELECT 0)
        SELECT e.board_id, coalesce(b.user_id, 0) AS owner_id, coalesce(l.pin_count, 0) AS pin_count,
               coalesce(l.recent_pin_ids, []) AS recent_pin_ids, {now} AS event_timestamp, {now} AS created
        FROM every e LEFT JOIN lists l USING (board_id) LEFT JOIN boards b USING (board_id)
        ORDER BY e.board_id
        """
    ).to_arrow_table()
    return write(out, BOARD_FEATURES, f"{as_of:%Y-%m-%d}", table)
