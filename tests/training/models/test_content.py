"""The content encoder: likeness of words and pictures, missing fields, and files without pickles."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from training.models.content import ContentConfig, ContentEncoder, hash_pins, without_content

CONFIG = ContentConfig(dim=16, hash_bits=12, sample=500)
WORDS = {1: "sourdough bread oven flour yeast", 2: "alpine trail boots summit ridge", 3: "vinyl jazz piano"}


def catalogue(n: int = 90, seed: int = 0) -> pd.DataFrame:
    """Pins of three topics with words of their own and a picture vector each."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((4, 8))
    rows = []
    for i in range(n):
        topic = i % 3 + 1
        words = rng.choice(WORDS[topic].split(), 3)
        rows.append(
            {
                "title": " ".join(words),
                "description": f"a pin about {words[0]}",
                "topics": np.array([topic]),
                "link_domain": f"site{topic}.example",
                "visual_embedding": (centres[topic] + 0.3 * rng.standard_normal(8)).astype(np.float32),
                "text_embedding": None,
            }
        )
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def pins() -> pd.DataFrame:
    return catalogue()


@pytest.fixture(scope="module")
def encoder(pins: pd.DataFrame) -> ContentEncoder:
    return ContentEncoder.fit([pins], CONFIG)


def same_topic_share(vectors: np.ndarray, topics: np.ndarray) -> float:
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -2)
    return float((topics[similarity.argmax(1)] == topics).mean())


def test_rows_are_unit_float32_and_neighbours_share_a_topic(pins: pd.DataFrame, encoder: ContentEncoder):
    vectors = encoder.encode(pins)
    assert vectors.shape == (90, 16) and vectors.dtype == np.float32 and vectors.flags.c_contiguous
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    topics = np.array([t[0] for t in pins["topics"]])
    assert same_topic_share(vectors, topics) > 0.95


@pytest.mark.parametrize(
    "columns", [["title"], ["topics"], ["visual_embedding"], ["description", "link_domain"]]
)
def test_any_one_field_is_enough(pins: pd.DataFrame, columns: list[str]):
    vectors = ContentEncoder.fit([pins[columns]], CONFIG).encode(pins[columns])
    assert not without_content(vectors).any()
    topics = np.array([t[0] for t in pins["topics"]])
    assert same_topic_share(vectors, topics) > 0.9


def test_a_pin_with_nothing_is_a_zero_row_and_is_found(pins: pd.DataFrame, encoder: ContentEncoder):
    bare = pd.DataFrame([dict.fromkeys(pins.columns), {"title": "sourdough"}, {"title": float("nan")}])
    vectors = encoder.encode(bare)
    np.testing.assert_array_equal(without_content(vectors), [True, False, True])
    assert not np.isnan(vectors).any()


def test_words_never_seen_leave_only_what_is_known(encoder: ContentEncoder):
    vectors = encoder.encode(pd.DataFrame({"title": ["zzz qqq"], "visual_embedding": [None]}))
    assert np.isfinite(vectors).all()


def test_the_chunking_changes_nothing(pins: pd.DataFrame, encoder: ContentEncoder):
    pieces = ContentEncoder.fit((pins.iloc[i : i + 7] for i in range(0, len(pins), 7)), CONFIG)
    np.testing.assert_array_equal(pieces.idf, encoder.idf)
    np.testing.assert_array_equal(pieces.encode(pins), encoder.encode(pins))
    np.testing.assert_array_equal(encoder.encode_in_chunks(pins, 11), encoder.encode(pins))


def test_a_sample_smaller_than_the_catalogue_still_counts_every_pin(pins: pd.DataFrame):
    small = ContentEncoder.fit([pins], CONFIG.model_copy(update={"sample": 30}))
    np.testing.assert_array_equal(small.idf, ContentEncoder.fit([pins], CONFIG).idf)
    topics = np.array([t[0] for t in pins["topics"]])
    assert same_topic_share(small.encode(pins), topics) > 0.9


def test_idf_by_hand():
    frame = pd.DataFrame({"title": ["red shoe", "red hat", "blue hat"]})
    encoder = ContentEncoder.fit([frame], CONFIG)
    red = hash_pins(pd.DataFrame({"title": ["red"]}), CONFIG, {}).indices[0]
    shoe = hash_pins(pd.DataFrame({"title": ["shoe"]}), CONFIG, {}).indices[0]
    assert encoder.idf[red] == pytest.approx(math.log(4 / 3) + 1)
    assert encoder.idf[shoe] == pytest.approx(math.log(4 / 2) + 1)


def test_topics_under_one_parent_are_nearer_than_others():
    frame = pd.DataFrame({"topics": [[1], [2], [3], [4]] * 10})
    vectors = ContentEncoder.fit([frame], CONFIG, {1: 9, 2: 9, 3: 8, 4: 8}).encode(frame)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.1


def test_a_circle_of_parents_ends():
    frame = pd.DataFrame({"topics": [[1], [2]]})
    assert np.isfinite(ContentEncoder.fit([frame], CONFIG, {1: 2, 2: 1}).encode(frame)).all()


def test_a_vector_of_another_width_is_named(encoder: ContentEncoder):
    with pytest.raises(ValueError, match="visual_embedding: a vector has 9 numbers where 8"):
        encoder.encode(pd.DataFrame({"visual_embedding": [np.ones(9, np.float32)]}))


def test_no_pins_is_named():
    with pytest.raises(ValueError, match="no pins to fit"):
        ContentEncoder.fit([], CONFIG)


def test_files_hold_the_encoder_bit_for_bit(pins: pd.DataFrame, tmp_path: Path):
    encoder = ContentEncoder.fit([pins], CONFIG, {1: 9})
    encoder.save(tmp_path)
    loaded = ContentEncoder.load(tmp_path)
    assert loaded.config == CONFIG and loaded.parents == {1: 9}
    np.testing.assert_array_equal(loaded.encode(pins), encoder.encode(pins))
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".json", ".safetensors"]


def test_equal_seeds_give_equal_vectors(pins: pd.DataFrame, encoder: ContentEncoder):
    np.testing.assert_array_equal(ContentEncoder.fit([pins], CONFIG).encode(pins), encoder.encode(pins))
