"""The query encoder: any string has a vector, what is saved comes back, and an export says the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers", reason="the text extra is not installed")

from tests.training.models.sentence_models import WIDTH, save_tiny_bert
from training.models.searchsage import Pooling, QueryEncoder, ScratchConfig, SearchSageConfig
from training.models.searchsage import encoder as encoder_module
from training.models.searchsage import runtime as runtime_module
from training.models.searchsage.eight_bits import BLOCK, blocks
from training.models.searchsage.network import start
from training.models.searchsage.runtime import (
    LEAST_COSINE,
    ExportDiffers,
    _graph,
    agreement,
    export,
    installed,
)
from training.models.searchsage.tokens import QueryTokens, train_wordpiece
from training.models.sentence import SentenceEncoder, SentenceEncoderMissing

ODD = [
    "bread oven",
    "Bread  OVEN",
    "",
    " \t\n",
    "x" * 2000,
    "trail boots " * 200,
    "😀😀 🍞",
    "שלום خبز",
    "面包 パン",
    "'; DROP TABLE pins; --",
    "<script>alert(1)</script>",
    "\ud800 half a letter",
    "\x00\x07",
]
SCRATCH = SearchSageConfig(
    text_encoder="ngrams", scratch=ScratchConfig(width=16, layers=1, heads=2, feed_forward=16, vocabulary=80)
)


def made(config: SearchSageConfig, dimension: int = 6) -> QueryEncoder:
    tower, tokens, origin = start(config, dimension, ["bread oven", "trail boots", "jazz"] * 3, seed=4)
    return QueryEncoder(tower, tokens, "pinsage@3", longest=config.max_tokens, origin=origin)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_bert(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def distilbert(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the family of multilingual ones; it knows no token types."""
    from transformers import AutoTokenizer, DistilBertConfig, DistilBertModel

    folder = tmp_path_factory.mktemp("distilbert")
    tokenizer = AutoTokenizer.from_pretrained(bert)
    tokenizer.save_pretrained(folder)
    shape = {"dim": WIDTH, "n_layers": 2, "n_heads": 3, "hidden_dim": 32, "max_position_embeddings": 32}
    DistilBertModel(DistilBertConfig(vocab_size=len(tokenizer), **shape)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["scratch", "cls", "mean", "distilbert"])
def encoder(request: pytest.FixtureRequest, bert: Path, distilbert: Path) -> QueryEncoder:
    if request.param == "scratch":
        return made(SCRATCH)
    if request.param == "distilbert":
        return made(SearchSageConfig(text_encoder=str(distilbert), max_tokens=16))
    return made(SearchSageConfig(text_encoder=str(bert), pooling=Pooling(request.param), max_tokens=16))


def test_every_string_has_a_unit_vector_and_the_same_one_each_time(encoder: QueryEncoder) -> None:
    found = encoder.encode(ODD)
    assert found.shape == (len(ODD), 6) and found.dtype == np.float32
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)
    assert np.array_equal(found, encoder.encode(ODD))
    alone = np.concatenate([encoder.encode([query]) for query in ODD])
    assert found == pytest.approx(alone, abs=1e-5)  # no query is padded by its batch
    assert encoder.encode([]).shape == (0, 6)
    assert found[0] == pytest.approx(found[1], abs=1e-5)  # case and spaces
    assert np.abs(found[0] - found[6]).max() > 1e-4


def test_a_long_query_is_cut_by_tokens(encoder: QueryEncoder) -> None:
    long, cut = encoder.encode(["bread " * 500, "bread " * encoder.longest])
    assert np.array_equal(long, cut)


def test_what_is_saved_comes_back(
    encoder: QueryEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder_module, "installed", lambda: False)
    encoder.save(tmp_path)
    assert {f.name for f in tmp_path.iterdir()} == {
        "searchsage.json",
        "searchsage.safetensors",
        "tokenizer.json",
    }
    loaded = QueryEncoder.load(tmp_path)
    assert np.array_equal(loaded.encode(ODD), encoder.encode(ODD))
    assert (loaded.stands_on, loaded.dimension, loaded.origin) == ("pinsage@3", 6, encoder.origin)
    assert json.loads((tmp_path / "searchsage.json").read_text())["space"] == "pinsage@3"


@pytest.mark.skipif(not installed(), reason="the onnx extra is not installed")
def test_an_export_says_the_same_of_every_length(
    encoder: QueryEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder.save(tmp_path)
    monkeypatch.setattr(encoder_module, "export", lambda tower: pytest.fail("loading exports nothing"))
    exported = QueryEncoder.load(tmp_path)
    assert exported.runtime.name == "onnxruntime" and encoder.runtime.name == "torch"
    assert (exported.encode(ODD) * encoder.encode(ODD)).sum(1).min() >= LEAST_COSINE


@pytest.mark.skipif(not installed(), reason="the onnx extra is not installed")
def test_weights_of_an_export_have_eight_bits_unless_its_vectors_would_be_off(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tower = made(SCRATCH).tower
    small = export(tower)
    assert b"MatMulNBits" in small and len(small) < len(_graph(tower))
    monkeypatch.setattr(runtime_module, "in_eight_bits", lambda graph: halved(graph))
    whole = export(tower)
    assert whole == _graph(tower) and "weights stay in 32 bits" in caplog.text
    assert agreement(whole, tower) > 0.99999
    with pytest.raises(ExportDiffers):
        monkeypatch.setattr(runtime_module, "_graph", lambda tower: halved(small))
        export(tower)


def halved(graph: bytes) -> bytes:
    """The graph with half of its tokens' vectors gone."""
    from onnx import load_from_string, numpy_helper

    model = load_from_string(graph)
    (words,) = (w for w in model.graph.initializer if "word_embeddings" in w.name)
    vectors = numpy_helper.to_array(words).copy()
    vectors[::2] = 0
    words.CopyFrom(numpy_helper.from_array(vectors, words.name))
    return model.SerializeToString()


def test_eight_bits_are_off_by_half_a_step_of_their_block() -> None:
    matrix = np.random.default_rng(2).normal(size=(3 * BLOCK, 5)).astype(np.float32)
    matrix[:BLOCK, 0] *= 100  # an outlier spoils its own block alone
    matrix[BLOCK:, 3] = 0
    integers, scales = blocks(matrix)
    assert integers.shape == (5, 3, BLOCK) and integers.dtype == np.uint8 and scales.shape == (15,)
    back = (integers.astype(np.float32) - 128) * scales.reshape(5, 3, 1)
    off = np.abs(back - matrix.T.reshape(5, 3, BLOCK))
    assert (off <= scales.reshape(5, 3, 1) * 0.501).all() and scales[1] < scales[0] / 20


@pytest.mark.skipif(not installed(), reason="the onnx extra is not installed")
def test_an_exported_tower_that_is_damaged_is_passed_over(
    encoder: QueryEncoder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encoder.save(tmp_path)
    (tmp_path / encoder_module.GRAPH).write_bytes(b"half a graph")
    loaded = QueryEncoder.load(tmp_path)
    assert loaded.runtime.name == "torch" and encoder_module.GRAPH in caplog.text


def test_what_cannot_be_exported_is_served_as_it_is(
    encoder: QueryEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def differs(tower: object) -> None:
        raise ExportDiffers("cosine 0.5")

    monkeypatch.setattr(encoder_module, "installed", lambda: True)
    monkeypatch.setattr(encoder_module, "export", differs)
    encoder.save(tmp_path)
    loaded = QueryEncoder.load(tmp_path)
    assert loaded.runtime.name == "torch" and "cosine 0.5" in caplog.text
    assert np.array_equal(loaded.encode(ODD), encoder.encode(ODD))


def test_a_pretrained_encoder_may_lose_its_last_layers(bert: Path) -> None:
    whole = made(SearchSageConfig(text_encoder=str(bert)))
    cut = made(SearchSageConfig(text_encoder=str(bert), layers=1))
    assert whole.tower.readout.in_features == cut.tower.readout.in_features == WIDTH
    layers = [e.tower.transformer.config.num_hidden_layers for e in (whole, cut)]
    assert layers == [2, 1]
    kept = {n: p for n, p in whole.tower.transformer.named_parameters() if ".layer.1." not in n}
    assert all((p == cut.tower.transformer.get_parameter(n)).all() for n, p in kept.items())
    assert whole.origin == str(SentenceEncoder.open(str(bert)).model)


def test_a_missing_encoder_is_named() -> None:
    with pytest.raises(SentenceEncoderMissing, match="no-such-encoder"):
        made(SearchSageConfig(text_encoder="no-such-encoder"))


def test_equal_texts_give_equal_pieces_and_frequent_words_are_whole() -> None:
    texts = [*["sourdough loaf"] * 20, "loafers", "sour", "Crème brûlée"]
    tokenizer, again = (train_wordpiece(texts, 60) for _ in range(2))
    assert tokenizer.get_vocab() == again.get_vocab() and tokenizer.get_vocab_size() <= 60
    assert tokenizer.encode("Sourdough LOAF creme").tokens[:3] == ["[CLS]", "sourdough", "loaf"]
    assert "[UNK]" not in tokenizer.encode("loafers souffle").tokens  # of letters that are known
    assert "[UNK]" in tokenizer.encode("z").tokens
    tokens = QueryTokens(tokenizer, 16)
    assert tokens.known("sourdough loaf") == 1 and tokens.known("") == tokens.known("😀 ש") == 0
    assert tokens.known("loaf שש") == pytest.approx(4 / 6)  # letters that no piece holds
    assert tokens.known("dhg") == 0  # one by one
