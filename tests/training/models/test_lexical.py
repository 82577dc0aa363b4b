"""Search by words against BM25 written out, and what people type against what the catalogue says."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from training.models.lexical import LexicalIndex, language_of, words
from training.models.lexical.index import K1, MOST_MENDED, B
from training.models.lexical.spelling import LANGUAGE, edits, trigrams
from validation.queries import LOGGED_QUERY

TEXTS = {
    30: "Chocolate cake recipes",
    10: "Crème brûlée in small dishes",
    20: "cake, cake, cake: a tower of cake",
    40: "苺ケーキ 🍰",
    50: "",
    60: "Blueberry pancakes and a recipe for jam",
    70: "wooden spoons",
    80: "wooden bowls",
    90: "wooden toys",
    95: "twelve jars",
}


HOUSE = ["linen sheet", "sheep wool", "oak table", "red jar", "tin can", "bath mat", "tea cup", "ink pen"]


@pytest.fixture(scope="module")
def index() -> LexicalIndex:
    return LexicalIndex.fit(np.array(list(TEXTS)), list(TEXTS.values()))


def bm25(query: list[str], pin_id: int) -> float:
    held = {pin: words(text) for pin, text in TEXTS.items()}
    mean = sum(map(len, held.values())) / len(held)
    total = 0.0
    for word in query:
        df = sum(word in text for text in held.values())
        tf = held[pin_id].count(word)
        idf = math.log(1 + (len(held) - df + 0.5) / (df + 0.5))
        total += idf * tf / (tf + K1 * (1 - B + B * len(held[pin_id]) / mean))
    return total


def test_scores_are_bm25(index: LexicalIndex) -> None:
    pin_ids, scores = index.search("cake recipe", 10)
    expected = {pin: bm25(["cake", "recipe"], pin) for pin in TEXTS}
    assert set(pin_ids.tolist()) == {pin for pin, score in expected.items() if score > 0}
    np.testing.assert_allclose(scores, [expected[pin] for pin in pin_ids.tolist()], rtol=1e-5)
    assert (np.diff(scores) <= 0).all()


def test_chosen_pins_score_a_share_of_what_the_query_could_reach(index: LexicalIndex) -> None:
    asked = np.array([60, 99, 30, 30, 50, 20])
    peak = sum(max(bm25([word], pin) for pin in TEXTS) for word in ("cake", "recipe"))
    expected = [bm25(["cake", "recipe"], pin) / peak if pin in TEXTS else 0.0 for pin in asked.tolist()]
    got = index.scores("recipes cake", asked)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    assert not index.scores("zzzz", asked).any()


def test_the_best_of_many_are_those_of_all_and_equals_stand_by_id() -> None:
    rng = np.random.default_rng(3)
    texts = [" ".join(rng.choice(["oak", "elm", "fir", "ash", "yew"], 3)) for _ in range(400)]
    index = LexicalIndex.fit(np.arange(400, 0, -1), texts)
    every, scores = index.search("oak elm", 400)
    assert every.tolist() == [pin for _, pin in sorted(zip(-scores, every.tolist(), strict=True))]
    assert index.search("oak elm", 37)[0].tolist() == every[:37].tolist()


@pytest.mark.parametrize(
    ("typed", "read", "corrected"),
    [
        ("choclate cake", ("chocolate", "cake"), (("choclate", "chocolate"),)),
        ("ckae", ("cake",), (("ckae", "cake"),)),
        ("tcake", (), ()),  # a short word keeps its first letter
        ("ckae bake", ("cake",), (("ckae", "cake"),)),
        ("woden", (), ()),  # too many pins say wooden
        ("recpie", ("recipe",), (("recpie", "recipe"),)),
        ("blubery", (), ()),  # two edits, and its seven letters allow one
        ("bluebery", ("blueberry",), (("bluebery", "blueberry"),)),
        ("CREME BRULEE", ("creme", "brulee"), ()),
        ("cake cakes CAKE", ("cake",), ()),
        ("'; drop table cake", ("cake",), ()),
        ("\u202e🍰\x00", ("🍰",), ()),
        ("ケーキ", ("ケー", "ーキ"), ()),
        ("cak", (), ()),
        ("xylophone", (), ()),
        ("", (), ()),
    ],
)
def test_what_is_typed_is_read_as_words_of_the_catalogue(
    index: LexicalIndex, typed: str, read: tuple[str, ...], corrected: tuple[tuple[str, str], ...]
) -> None:
    assert index.read(typed).words == read
    assert index.read(typed).corrected == corrected


def test_a_word_of_the_language_is_no_slip(tmp_path: Path) -> None:
    plain = LexicalIndex.fit(np.arange(1, 9), HOUSE)
    assert plain.read("sweet tabel").corrected == (("sweet", "sheet"), ("tabel", "table"))
    knowing = LexicalIndex.fit(np.arange(1, 9), HOUSE, frozenset({"sweet"}))
    knowing.save(tmp_path)
    for index in (knowing, LexicalIndex.load(tmp_path)):
        reading = index.read("sweet tabel")
        assert (reading.corrected, reading.unknown) == ((("tabel", "table"),), ("sweet",))
    (tmp_path / LANGUAGE).unlink()  # as versions from before have none
    assert LexicalIndex.load(tmp_path).read("sweet").corrected == (("sweet", "sheet"),)


def test_a_slip_that_two_words_are_as_near_to_is_read_and_unsure() -> None:
    index = LexicalIndex.fit(np.arange(1, 9), HOUSE)
    reading = index.read("sheeb tabel")
    assert [typed for typed, _ in reading.corrected] == ["sheeb", "tabel"] and reading.unsure == ("sheeb",)


def test_a_language_is_the_whole_words_of_a_wordpiece_vocabulary(tmp_path: Path) -> None:
    pieces = ["[UNK]", "sweet", "##ness", "boxes", "ox", "1990", "été"]
    model = {"type": "WordPiece", "vocab": {piece: i for i, piece in enumerate(pieces)}}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model}))
    assert language_of(tmp_path) == {"sweet", "box"}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"type": "BPE", "vocab": {"sweet": 0}}}))
    assert language_of(tmp_path) == language_of(None) == language_of(tmp_path / "no") == frozenset()


def test_a_very_long_query_is_cut_off(index: LexicalIndex) -> None:
    query = " ".join(f"word{i}" for i in range(500)) + " cake"
    assert index.read(query).words == ()
    assert index.search("cake " + query, 5)[0].tolist() == index.search("cake", 5)[0].tolist()


def test_so_many_unknown_words_are_looked_up_and_the_others_told(index: LexicalIndex) -> None:
    strange = [f"{a}{b}lueberry" for a in "xyz" for b in "aeiou"]
    reading = index.read(" ".join([*strange[:MOST_MENDED], "bluebery", "cake"]))
    assert reading.words[-1] == "cake" and "bluebery" in reading.unknown
    assert ("bluebery", "blueberry") in index.read(
        " ".join([*strange[: MOST_MENDED - 1], "bluebery"])
    ).corrected


def test_readings_of_long_queries_are_not_kept(index: LexicalIndex) -> None:
    before = index._reading.cache_info().currsize
    assert index.read("cake " * LOGGED_QUERY).words == ("cake",)
    assert index._reading.cache_info().currsize == before


def test_trigrams_of_words_are_counted_once(index: LexicalIndex) -> None:
    spelling = index._spelling
    held = [len(trigrams(word)) if len(word) > 1 and word.isalpha() else 0 for word in spelling.vocabulary]
    assert spelling._sizes.tolist() == held


def test_words_fold_case_accents_and_plurals() -> None:
    assert words("Éclairs & PONIES, boxes_of glasses; bus moss") == [
        "eclair", "pony", "box", "of", "glass", "bus", "moss",
    ]  # fmt: skip
    assert words("soft\u00adhyphen שָׁלוֹם") == ["softhyphen", "שלום"]
    assert words("\x00\x07<script>{{x}}</script>") == ["script", "x", "script"]


def test_edits_count_swapped_neighbours_once() -> None:
    assert [edits("recipe", other) for other in ("recipe", "recpie", "recip", "cipe", "")] == [0, 1, 1, 2, 6]


def test_a_kept_index_answers_alike_and_nothing_of_it_is_pickled(index: LexicalIndex, tmp_path: Path) -> None:
    index.save(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".npy", ".json"}
    kept = LexicalIndex.load(tmp_path)
    for query in ("cake recpie", "ケーキ", "zzzz"):
        assert kept.read(query) == index.read(query)
        for one, other in zip(kept.search(query, 9), index.search(query, 9), strict=True):
            np.testing.assert_array_equal(one, other)
    np.save(tmp_path / "pin_ids.npy", np.arange(3))
    with pytest.raises(ValueError, match="train lexical again"):
        LexicalIndex.load(tmp_path)


def test_what_cannot_be_searched_is_refused() -> None:
    with pytest.raises(ValueError, match="distinct"):
        LexicalIndex.fit(np.array([1, 1]), ["a", "b"])
    with pytest.raises(ValueError, match="no pin has a word"):
        LexicalIndex.fit(np.array([1, 2]), ["", "--"])
