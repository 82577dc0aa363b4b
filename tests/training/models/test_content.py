"""The content encoder: likeness of words and pictures, missing fields, and files without pickles."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.training.models.sentence_models import save_tiny_bert
from training.models import content
from training.models.content import (
    NGRAMS,
    ContentConfig,
    ContentEncoder,
    hash_pins,
    open_text_encoder,
    without_content,
)
from training.models.sentence import (
    SentenceEncoder,
    SentenceEncoderChanged,
    SentenceEncoderMissing,
    SentenceModel,
)

CONFIG = ContentConfig(dim=16, hash_bits=12, sample=500, text_encoder="ngrams")
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
    # Products of other heights may round otherwise in the last bit, on some CPUs.
    np.testing.assert_allclose(pieces.encode(pins), encoder.encode(pins), atol=1e-6)
    np.testing.assert_allclose(encoder.encode_in_chunks(pins, 11), encoder.encode(pins), atol=1e-6)


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


def test_both_vector_columns_survive_the_files(pins: pd.DataFrame, tmp_path: Path):
    rng = np.random.default_rng(1)
    texts = [rng.standard_normal(5).astype(np.float32) for _ in range(len(pins))]
    encoder = ContentEncoder.fit([pins.assign(text_embedding=texts)], CONFIG)
    encoder.save(tmp_path)
    given = pins.assign(text_embedding=texts)
    np.testing.assert_array_equal(ContentEncoder.load(tmp_path).encode(given), encoder.encode(given))


def test_equal_seeds_give_equal_vectors(pins: pd.DataFrame, encoder: ContentEncoder):
    np.testing.assert_array_equal(ContentEncoder.fit([pins], CONFIG).encode(pins), encoder.encode(pins))


class Meanings:
    """A sentence encoder that knows three things and that words of one thing mean the same."""

    model = SentenceModel(name="meanings", version="1", width=3)
    things = (("bread", "loaf"), ("hike", "trail"), ("piano", "keys"))

    def encode(self, texts: list[str]) -> np.ndarray:
        counts = [[sum(text.count(word) for word in thing) for thing in self.things] for text in texts]
        rows = np.array(counts, np.float32).reshape(len(texts), 3)
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


SYNONYMS = pd.DataFrame({"title": ["bread", "loaf", "hike", "trail", "piano", "keys"] * 5, "topics": None})


def test_sentences_bring_together_what_shares_no_word():
    read = ContentEncoder.fit([SYNONYMS], CONFIG, sentences=Meanings()).encode(SYNONYMS)
    hashed = ContentEncoder.fit([SYNONYMS], CONFIG).encode(SYNONYMS)
    assert read[0] @ read[1] > read[0] @ read[2] + 0.5
    assert hashed[0] @ hashed[1] == pytest.approx(hashed[0] @ hashed[2], abs=1e-3)


def test_the_sentence_block_by_hand():
    pins = SYNONYMS.assign(topics=[[1 + i % 6] for i in range(len(SYNONYMS))])
    config = CONFIG.model_copy(update={"dim": 64, "sentence_weight": 0.5})
    encoder = ContentEncoder.fit([pins], config, sentences=Meanings())
    np.testing.assert_allclose(encoder.means["sentence"], [1 / 3] * 3, atol=1e-6)
    bread, loaf, hike = encoder.encode(pins)[:3]
    # topics differ, so only sentences meet: (2, -1, -1) with itself and with (-1, 2, -1), over 0.5^2 + 1^2
    assert bread @ loaf == pytest.approx(0.25 * 1 / 1.25, abs=1e-4)
    assert bread @ hike == pytest.approx(0.25 * -0.5 / 1.25, abs=1e-4)


def test_words_are_hashed_only_where_nobody_reads_them_or_on_demand():
    frame = pd.DataFrame({"title": ["red shoe"], "topics": [[1]]})

    def terms(**changes: object) -> int:
        return hash_pins(frame, CONFIG.model_copy(update=changes), {}).nnz

    assert terms() == 4  # two words, their pair, the topic
    assert terms(text_encoder="a-package") == 1
    assert terms(text_encoder="a-package", word_ngrams=True) == 4


def test_a_pin_without_words_keeps_its_other_fields(pins: pd.DataFrame):
    encoder = ContentEncoder.fit([pins], CONFIG, sentences=Meanings())
    bare = pd.DataFrame({"title": [None, " ", "bread"], "topics": [[1], None, None]})
    np.testing.assert_array_equal(without_content(encoder.encode(bare)), [False, True, False])


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers", reason="the text extra is not installed")
    return save_tiny_bert(tmp_path_factory.mktemp("bert"))


def test_files_name_the_sentence_encoder_and_rebuild_it(pins: pd.DataFrame, bert: Path, tmp_path: Path):
    encoder = ContentEncoder.fit([pins], CONFIG.model_copy(update={"text_encoder": str(bert)}))
    assert encoder.config.text_encoder == str(bert) and "sentence" in encoder.means
    encoder.save(tmp_path)
    loaded = ContentEncoder.load(tmp_path)
    assert loaded.sentences is not None and loaded.sentences.model == encoder.sentences.model
    np.testing.assert_array_equal(loaded.encode(pins), encoder.encode(pins))
    np.testing.assert_allclose(encoder.encode_in_chunks(pins, 11), encoder.encode(pins), atol=1e-5)


def test_loading_refuses_another_sentence_encoder(pins: pd.DataFrame, bert: Path, tmp_path: Path):
    ContentEncoder.fit([pins], CONFIG.model_copy(update={"text_encoder": str(bert)})).save(tmp_path / "made")
    saved = tmp_path / "made" / "content.json"
    text = saved.read_text()
    version = SentenceEncoder.open(str(bert)).model.version
    saved.write_text(text.replace(version, "sha256:0"))
    with pytest.raises(SentenceEncoderChanged, match="put those files back, or train anew"):
        ContentEncoder.load(tmp_path / "made")
    saved.write_text(text.replace(str(bert), str(tmp_path / "gone")))
    with pytest.raises(SentenceEncoderMissing, match="gone"):
        ContentEncoder.load(tmp_path / "made")


def test_auto_is_the_package_where_it_is_and_ngrams_elsewhere(
    pins: pd.DataFrame, bert: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(content, "PACKAGE", str(bert))
    found = open_text_encoder("auto")
    assert found is not None and found.model.name == str(bert)
    monkeypatch.setattr(content, "PACKAGE", "no-such-encoder")
    assert open_text_encoder("auto") is None
    auto = ContentEncoder.fit([pins], CONFIG.model_copy(update={"text_encoder": "auto"}))
    assert auto.config.text_encoder == NGRAMS
    np.testing.assert_array_equal(auto.encode(pins), ContentEncoder.fit([pins], CONFIG).encode(pins))
    with pytest.raises(SentenceEncoderMissing, match="pip install no-such-encoder"):
        open_text_encoder("no-such-encoder")
