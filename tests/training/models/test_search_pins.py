"""SearchSage's space keeps what its parts say of likeness, and adds what people did."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from training.models.searchsage.pins import PinBlocks, PinSpace, PinSpaceConfig
from training.models.sentence import SentenceModel

READER = SentenceModel(name="reader", version="1", width=16)
N = 40


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def blocks() -> PinBlocks:
    rng = np.random.default_rng(1)
    low = rng.standard_normal((N, 5)) @ rng.standard_normal((5, 16))  # texts of five directions
    return PinBlocks(
        unit(rng.standard_normal((N, 4))),
        unit(rng.standard_normal((N, 3))),
        unit(low),
        rng.integers(0, 50, N),
    )


def test_products_are_those_of_the_parts_weighed(blocks: PinBlocks) -> None:
    config = PinSpaceConfig(text_dim=5, content_weight=0.5, pinsage_weight=2.0, engagement_weight=0.1)
    space = PinSpace.fit(config, blocks, READER)
    made = space.join(blocks)
    assert made.shape == (N, 5 + 4 + 3 + 1) and made.dtype == np.float32
    assert np.linalg.norm(made, axis=1) == pytest.approx(1.0, abs=1e-5)
    said = np.log1p(blocks.actions)
    products = (
        blocks.text @ blocks.text.T  # nothing of it lay outside the five directions
        + 0.25 * blocks.content @ blocks.content.T
        + 4.0 * blocks.pinsage @ blocks.pinsage.T
        + 0.01 * np.outer(said, said)
    )
    lengths = np.sqrt(np.diag(products))
    assert made @ made.T == pytest.approx(products / np.outer(lengths, lengths), abs=1e-5)


def test_texts_that_are_cut_keep_their_leading_directions(blocks: PinBlocks) -> None:
    space = PinSpace.fit(PinSpaceConfig(text_dim=3), blocks, READER)
    _, _, right = np.linalg.svd(blocks.text, full_matrices=False)
    assert np.abs(right[:3] @ space.rotation) == pytest.approx(np.eye(3), abs=1e-3)


def test_without_a_reader_or_pinsage_the_other_parts_are_the_space(blocks: PinBlocks) -> None:
    space = PinSpace.fit(PinSpaceConfig(), PinBlocks(blocks.content, None, None, blocks.actions), None)
    assert space.rotation is None
    assert space.join(PinBlocks(blocks.content, None, None, blocks.actions)).shape == (N, 4 + 1)


def test_for_titles_the_space_is_that_of_the_texts(blocks: PinBlocks) -> None:
    space = PinSpace.fit(PinSpaceConfig().for_titles(blocks.text), blocks, READER)
    made = space.join(blocks)
    assert made.shape == (N, 16 + 1) and not made[:, -1].any()
    assert made @ made.T == pytest.approx(blocks.text @ blocks.text.T, abs=1e-5)
    unread = PinSpaceConfig().for_titles(None)
    assert (unread.content_weight, unread.engagement_weight) == (PinSpaceConfig().content_weight, 0)


def test_a_pin_of_which_nothing_is_known_has_no_vector(blocks: PinBlocks) -> None:
    for part in (blocks.content, blocks.pinsage, blocks.text):
        part[0] = 0
    blocks.actions[0] = 9
    space = PinSpace.fit(PinSpaceConfig(text_dim=5), blocks, READER)
    made = space.join(blocks)
    assert not made[0].any() and made[1:].any(axis=1).all()


def test_what_is_saved_comes_back(blocks: PinBlocks, tmp_path: Path) -> None:
    for reader in (READER, None):
        space = PinSpace.fit(PinSpaceConfig(text_dim=5), blocks, reader)
        space.save(tmp_path)
        loaded = PinSpace.load(tmp_path)
        assert (loaded.config, loaded.sentences) == (space.config, space.sentences)
        np.testing.assert_array_equal(loaded.join(blocks), space.join(blocks))
