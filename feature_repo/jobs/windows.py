"""Engagement of users and pins over the trailing 1, 7 and 30 whole UTC days, a snapshot each midnight.

The snapshot of midnight D counts the days [D - w, D). A row is written only for a user or pin whose counts may
have changed: those active on a day that enters a window (D - 1) or leaves one (D - w - 1), for nothing else can
change a count. A follow gives its user a row at the midnight after it; follows older than the first day of the
actions are in the first snapshot. Midnights at which nothing can change are passed over, so a stray old row
costs a few snapshots and not every midnight since; the last one is always written. Per-day counts of the last
month are kept in DuckDB and roll on by one day, so memory follows a month of activity, not the lake.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from feature_repo.jobs.catalogue import STATIC
from feature_repo.jobs.database import days_of, literal
from feature_repo.jobs.files import write
from feature_repo.schema import PIN_SCALARS, USER_SCALARS, WINDOWS
from feature_repo.views import PIN_STATS, USER_PROFILE

if TYPE_CHECKING:
    import duckdb

    from validation.lake import Lake

COUNTED = ("impressions", "actions", "positives", "negatives")
LONGEST = max(WINDOWS)
EDGES = (1, *(window + 1 for window in WINDOWS))
"""Days before a midnight on which an event changes a count: they enter a window there, or leave one."""
FOLLOWED = 500
"""Topics, and boards, kept per user: those followed last."""

_DAY = timedelta(days=1)

LINES = 14
"""Days between two lines of progress."""

_DAYS = "(id BIGINT, day TIMESTAMPTZ, impressions INT, actions INT, positives INT, negatives INT)"
_TABLES = f"""
CREATE TEMP TABLE pin_days {_DAYS};
CREATE TEMP TABLE user_days {_DAYS};
CREATE TEMP TABLE pin_users (pin_id BIGINT, user_id BIGINT, day TIMESTAMPTZ);
CREATE TEMP TABLE pin_boards (pin_id BIGINT, board_id BIGINT, day TIMESTAMPTZ);
CREATE TEMP TABLE user_topics (user_id BIGINT, topic_id BIGINT, day TIMESTAMPTZ);
"""
_ROLLING = ("pin_days", "user_days", "pin_users", "pin_boards", "user_topics")


def snapshots(
    db: duckdb.DuckDBPyConnection,
    lake: Lake,
    out: Path,
    first: datetime,
    last: datetime,
    progress: Callable[[str], None],
) -> dict[str, int]:
    """Writes `user_profile` and `pin_stats` of the midnights in [first, last]; returns rows by view.

    Midnights at which nothing can change have no file, except `last`; files of such that an earlier build left
    are removed.
    Needs table `pin_base`. Both bounds are UTC midnights.
    """
    db.execute(_TABLES)
    _first_users(db, lake, out)
    rows = {USER_PROFILE.name: 0, PIN_STATS.name: 0}
    begins = lake.interval()[0]
    midnights = _midnights(db, lake, max(first - timedelta(days=LONGEST + 1), begins), last)
    _remove_others(out, midnights, first, last)
    written = [at for at in midnights if at >= first]
    told = {*written[LINES - 1 :: LINES], *written[-1:]}
    for at in midnights:
        _roll(db, lake, at - _DAY)
        if at < first:
            continue
        followed_since = at - _DAY if at - _DAY > begins else None
        rows[USER_PROFILE.name] += write(out, USER_PROFILE, f"{at:%Y-%m-%d}", _users(db, at, followed_since))
        rows[PIN_STATS.name] += write(out, PIN_STATS, f"{at:%Y-%m-%d}", _pins(db, at))
        if at in told:
            progress(f"features up to {at:%Y-%m-%d}, {written.index(at) + 1} of {len(written)} days")
    return rows


def _midnights(db: duckdb.DuckDBPyConnection, lake: Lake, begins: datetime, last: datetime) -> list[datetime]:
    """Midnights in (begins, last] at which something can change by what came from `begins` on, and `last`."""
    events = {_midnight(day) for table in ("actions", "impressions") for day in lake.days(table)}
    followed = db.execute("SELECT DISTINCT timestamp::DATE FROM follows").fetchall()
    changes = {day + edge * _DAY for day in events if day >= begins for edge in EDGES}
    changes |= {_midnight(day) + _DAY for (day,) in followed}
    return sorted(at for at in changes | {last} if begins < at <= last)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _remove_others(out: Path, midnights: list[datetime], first: datetime, last: datetime) -> None:
    """Removes the snapshots in [first, last] of midnights at which nothing changes any more."""
    kept = {f"{at:%Y-%m-%d}" for at in midnights}
    for view in (USER_PROFILE, PIN_STATS):
        for file in (out / view.name).glob("????-??-??.parquet"):
            if first <= _midnight(date.fromisoformat(file.stem)) <= last and file.stem not in kept:
                file.unlink()


def _roll(db: duckdb.DuckDBPyConnection, lake: Lake, day: datetime) -> None:
    """Adds the activity of `day` and forgets what no window of its end, nor a change in one, can see."""
    days_of(db, lake, "actions", [day.date()])
    days_of(db, lake, "impressions", [day.date()])
    at = literal(day)
    for table, key in (("pin_days", "pin_id"), ("user_days", "user_id")):
        db.execute(
            f"""
            INSERT INTO {table}
            SELECT id, {at}, sum(impressions), sum(actions), sum(positives), sum(negatives) FROM (
                SELECT {key} AS id, 1 AS impressions, 0 AS actions, 0 AS positives, 0 AS negatives
                FROM impressions
                UNION ALL
                SELECT {key}, 0, 1, is_positive(action)::INT, is_negative(action)::INT FROM actions
            ) GROUP BY id
            """
        )
    db.execute(
        f"""
        INSERT INTO pin_users SELECT DISTINCT pin_id, user_id, {at} FROM actions WHERE is_positive(action);
        INSERT INTO pin_boards SELECT DISTINCT pin_id, board_id, {at} FROM actions
            WHERE board_id IS NOT NULL AND is_positive(action);
        INSERT INTO user_topics SELECT DISTINCT user_id, topic, {at}
            FROM (SELECT a.user_id, unnest(p.all_topics) AS topic
                  FROM actions a JOIN pin_base p USING (pin_id) WHERE is_positive(a.action));
        """
    )
    oldest = literal(day - timedelta(days=LONGEST))
    for table in _ROLLING:
        db.execute(f"DELETE FROM {table} WHERE day < {oldest}")


def _changed(days: str, at: datetime) -> str:
    """SQL of the ids whose counts can differ between midnights `at - 1 day` and `at`."""
    moments = ", ".join(literal(at - edge * _DAY) for edge in EDGES)
    return f"SELECT DISTINCT id FROM {days} WHERE day IN ({moments})"


def _counts(at: datetime, days: str) -> str:
    """SQL of one row an id: every counter over every window that ends at `at`."""
    sums = ", ".join(
        f"coalesce(sum(d.{what}) FILTER (d.day >= {literal(at - timedelta(days=w))}), 0)::FLOAT AS {what}_{w}d"
        for what in COUNTED
        for w in WINDOWS
    )
    return f"SELECT c.id, {sums} FROM changed c LEFT JOIN {days} d ON d.id = c.id GROUP BY c.id"


def _users(  # type: ignore[no-untyped-def]  # pa.Table
    db: duckdb.DuckDBPyConnection, at: datetime, followed_since: datetime | None
):
    """Rows of the users whose counts may change at `at`, or who followed since (ever before it where None)."""
    start, now = literal(at - timedelta(days=LONGEST)), literal(at)
    since = "TIMESTAMPTZ '-infinity'" if followed_since is None else literal(followed_since)
    scalars = ", ".join(f"coalesce({name}, 0)::FLOAT AS {name}" for name in USER_SCALARS)
    return db.sql(
        f"""
        WITH changed AS (
            {_changed("user_days", at)}
            UNION SELECT user_id FROM follows WHERE timestamp >= {since} AND timestamp < {now}
            UNION SELECT 0
        ),
        counts AS ({_counts(at, "user_days")}),
        active AS (
            SELECT id, count(*) AS active_days_30d FROM user_days
            WHERE day >= {start} AND actions > 0 GROUP BY id
        ),
        interests AS (
            SELECT user_id AS id, count(DISTINCT topic_id) AS distinct_topics_30d
            FROM user_topics WHERE day >= {start} GROUP BY user_id
        ),
        {_followed("topic", now)},
        {_followed("board", now)},
        rows AS (
            SELECT c.id AS user_id, * EXCLUDE (id),
                   len(topic_ids) AS followed_topics_count, len(board_ids) AS followed_boards_count
            FROM counts c
            LEFT JOIN active USING (id) LEFT JOIN interests USING (id)
            LEFT JOIN followed_topic USING (id) LEFT JOIN followed_board USING (id)
        )
        SELECT r.user_id, {scalars}, u.country, u.language, u.state,
               coalesce(epoch_us(u.created_at) // 1000, 0) AS created_at_ms,
               coalesce(r.topic_ids, [])[:{FOLLOWED}] AS followed_topics,
               coalesce(r.board_ids, [])[:{FOLLOWED}] AS followed_boards,
               {now} AS event_timestamp, {now} AS created
        FROM rows r LEFT JOIN users u ON u.user_id = r.user_id
        ORDER BY r.user_id
        """
    ).to_arrow_table()


def _followed(kind: str, now: str) -> str:
    """SQL of what each user follows before `now`, what was followed last first."""
    return f"""
        followed_{kind} AS (
            SELECT user_id AS id, list({kind}_id ORDER BY latest DESC, {kind}_id) AS {kind}_ids FROM (
                SELECT user_id, {kind}_id, max(timestamp) AS latest FROM follows
                WHERE {kind}_id IS NOT NULL AND timestamp < {now} GROUP BY user_id, {kind}_id
            ) GROUP BY user_id
        )"""


def _pins(db: duckdb.DuckDBPyConnection, at: datetime):  # type: ignore[no-untyped-def]  # pa.Table
    start, now = literal(at - timedelta(days=LONGEST)), literal(at)
    scalars = ", ".join(f"coalesce({name}, 0)::FLOAT AS {name}" for name in PIN_SCALARS)
    return db.sql(
        f"""
        WITH changed AS ({_changed("pin_days", at)} UNION SELECT 0),
        counts AS ({_counts(at, "pin_days")}),
        people AS (
            SELECT pin_id AS id, count(DISTINCT user_id) AS positive_users_30d
            FROM pin_users SEMI JOIN changed ON changed.id = pin_users.pin_id
            WHERE day >= {start} GROUP BY pin_id
        ),
        boards_of AS (
            SELECT pin_id AS id, count(DISTINCT board_id) AS boards_30d
            FROM pin_boards SEMI JOIN changed ON changed.id = pin_boards.pin_id
            WHERE day >= {start} GROUP BY pin_id
        ),
        rows AS (
            SELECT c.id AS pin_id, c.* EXCLUDE (id), people.positive_users_30d, boards_of.boards_30d,
                   {", ".join(f"b.{name}" for name in STATIC)}, b.created_at_ms, b.topics
            FROM counts c LEFT JOIN pin_base b ON b.pin_id = c.id
            LEFT JOIN people ON people.id = c.id LEFT JOIN boards_of ON boards_of.id = c.id
        )
        SELECT pin_id, {scalars}, coalesce(created_at_ms, 0) AS created_at_ms,
               coalesce(topics, list_resize([]::BIGINT[], {PIN_STATS.widths["topics"]}, 0)) AS topics,
               {now} AS event_timestamp, {now} AS created
        FROM rows ORDER BY pin_id
        """
    ).to_arrow_table()


def _first_users(db: duckdb.DuckDBPyConnection, lake: Lake, out: Path) -> None:
    """Writes what is known of each user of the `users` table from joining on: no counts, who they are.

    A user without a joining time counts from the first day of the actions; one who followed before joining,
    from the first follow, so that this row never hides a snapshot with what they follow.
    """
    start = literal(lake.interval()[0])
    zeros = ", ".join(f"0::FLOAT AS {name}" for name in USER_SCALARS)
    table = db.sql(
        f"""
        SELECT user_id, {zeros}, country, language, state,
               coalesce(epoch_us(created_at) // 1000, 0) AS created_at_ms,
               []::BIGINT[] AS followed_topics, []::BIGINT[] AS followed_boards,
               least(coalesce(created_at, {start}), earliest) AS event_timestamp, event_timestamp AS created
        FROM users
        LEFT JOIN (SELECT user_id, min(timestamp) AS earliest FROM follows GROUP BY user_id) USING (user_id)
        """
    ).to_arrow_table()
    write(out, USER_PROFILE, "joined", table)
