"""The planted catalogue: pins with a topic, a style and a quality, and the text, vector and picture of each.

Pins are made in blocks, each from its own seed; what the simulation needs of them (`Pins`) is about 24 bytes
a pin and stays in memory, the rest goes straight to disk.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from training.data.world_config import MS_DAY, WorldConfig
from training.data.world_pictures import NUMBERS, PALETTE_VARIANTS, palettes, picture
from training.data.world_topics import STYLE_NAMES, STYLE_WORDS, TopicTree
from validation.tables import PINS, TIME

_HISTORY_DAYS = 365
_MADE_BEFORE = 0.75
"""Share of the catalogue that is older than the first day of the log."""

_TITLE_FORMS = (
    "{s} {w}",
    "{w} in a {s} mood",
    "{s} {w} ideas",
    "how to: {w}",
    "{w}, {s} and simple",
    "my {s} {w}",
    "{w} inspiration",
    "{s} {w} for beginners",
)
_DESCRIPTION_FORMS = (
    "Everything about {w} and {v}. A {s} take on {leaf}.",
    "{s} {leaf}: start with {w}, then try {v}.",
    "Saved for the weekend: {w} with {v}.",
    "A {s} guide to {w}, {v} and {u}.",
    "{leaf} notes on {v}. Full story at the link.",
)
_DOMAIN_ENDS = ("daily", "journal", "studio", "club", "notes")


@dataclass(frozen=True)
class Pins:
    """What the simulation knows of every pin; row i is pin id i + 1."""

    leaf: np.ndarray
    """int16 (N,): primary topic's leaf."""
    second: np.ndarray
    """int16 (N,): second topic's leaf, -1 for none."""
    mix: np.ndarray
    """float32 (N,): weight of the primary leaf; the second has the rest."""
    style: np.ndarray
    """int8 (N,)."""
    quality: np.ndarray
    """float32 (N,): standard normal, seen by users, not written in the content."""
    created_ms: np.ndarray
    """int64 (N,): Unix ms."""
    thing: np.ndarray
    """int8 (N,): which of its topic's things its title shows; 0 until `Catalogue.rows` wrote it."""

    def __len__(self) -> int:
        return len(self.leaf)


def blocks(config: WorldConfig) -> list[tuple[int, int]]:
    """(start, stop) rows of each block of pins."""
    return [(s, min(s + config.block_pins, config.pins)) for s in range(0, config.pins, config.block_pins)]


def traits(config: WorldConfig, tree: TopicTree, block: int, size: int) -> Pins:
    """The hidden traits of one block of pins."""
    rng = np.random.default_rng([config.seed, 1, block])
    leaves = len(tree.leaves)
    leaf = rng.choice(leaves, size, p=leaf_shares(config, leaves)).astype(np.int16)
    second = rng.integers(0, leaves, size).astype(np.int16)
    sibling = tree.leaf_root[leaf] * config.leaves_per_root + rng.integers(0, config.leaves_per_root, size)
    second = np.where(rng.random(size) < 0.6, sibling, second).astype(np.int16)
    second[(rng.random(size) < 0.55) | (second == leaf)] = -1
    mix = np.where(second >= 0, rng.uniform(0.55, 0.85, size), 1.0).astype(np.float32)
    start_ms = int(config.start_time.timestamp() * 1000)
    old = rng.random(size) < _MADE_BEFORE
    age = np.where(old, -rng.random(size) * _HISTORY_DAYS, rng.random(size) * config.days) * MS_DAY
    return Pins(
        leaf=leaf,
        second=second,
        mix=mix,
        style=rng.integers(0, len(STYLE_NAMES), size).astype(np.int8),
        quality=rng.standard_normal(size).astype(np.float32),
        created_ms=start_ms + age.astype(np.int64),
        thing=np.zeros(size, np.int8),
    )


def leaf_shares(config: WorldConfig, leaves: int) -> np.ndarray:
    """Share of pins and of interests by leaf, float64 (L,): a long tail in a seeded order."""
    rng = np.random.default_rng([config.seed, 0])
    share = (1 + rng.permutation(leaves)) ** -0.6
    return share / share.sum()


@dataclass(frozen=True)
class Geometry:
    """Directions of topics and styles in content space; one draw a world."""

    leaf: np.ndarray
    """float32 (L, d) unit rows; leaves of one root lie near each other."""
    style: np.ndarray
    """float32 (S, d), length 0.5."""

    @classmethod
    def of(cls, config: WorldConfig, tree: TopicTree) -> Geometry:
        rng = np.random.default_rng([config.seed, 2])
        roots = _unit(rng.standard_normal((len(tree.roots), config.visual_dim)))
        own = _unit(rng.standard_normal((len(tree.leaves), config.visual_dim)))
        leaf = _unit(0.7 * roots[tree.leaf_root] + 1.0 * own)
        style = 0.5 * _unit(rng.standard_normal((len(STYLE_NAMES), config.visual_dim)))
        return cls(leaf=leaf.astype(np.float32), style=style.astype(np.float32))

    def vectors(self, pins: Pins, noise: float, rng: np.random.Generator) -> np.ndarray:
        """Content vectors float32 (n, d): topic mixture + style + noise, unit rows."""
        rest = (1 - pins.mix)[:, None] * (pins.second >= 0)[:, None]
        signal = (
            pins.mix[:, None] * self.leaf[pins.leaf] + rest * self.leaf[pins.second] + self.style[pins.style]
        )
        dim = self.leaf.shape[1]
        vectors = signal + noise / np.sqrt(dim) * rng.standard_normal((len(pins), dim), dtype=np.float32)
        return _unit(vectors).astype(np.float32)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


class Catalogue:
    """Turns blocks of traits into rows of the `pins` table."""

    def __init__(self, config: WorldConfig, tree: TopicTree) -> None:
        self.config = config
        self.tree = tree
        self.geometry = Geometry.of(config, tree)
        self.palettes = palettes(tree.leaf_root)

    def rows(self, block: int, first: int, pins: Pins) -> pa.Table:
        """The contract rows of pins `first + 1`.. of one block; notes in `pins.thing` what each title shows."""
        rng = np.random.default_rng([self.config.seed, 3, block])
        n = len(pins)
        vectors = self.geometry.vectors(pins, self.config.visual_noise, rng)
        numbers = rng.integers(0, 1000, (n, NUMBERS + 6)).tolist()
        titles, things, descriptions, domains, images = [], [], [], [], []
        for leaf, second, style, own in zip(
            pins.leaf.tolist(), pins.second.tolist(), pins.style.tolist(), numbers, strict=True
        ):
            title, description, domain = self._text(leaf, second, style, own[NUMBERS:])
            titles.append(title)
            things.append(own[NUMBERS + 1] % len(self.tree.words[leaf]))
            descriptions.append(description)
            domains.append(domain)
            if self.config.images:
                colours = self.palettes[leaf][style][own[7] % PALETTE_VARIANTS]
                images.append(picture(int(self.tree.leaf_root[leaf]), colours, own[:NUMBERS]))
        pins.thing[:] = things
        columns = {
            "pin_id": pa.array(np.arange(first + 1, first + n + 1), pa.int64()),
            "created_at": pa.array(pins.created_ms * 1000, pa.int64()).cast(TIME),
            "title": pa.array(titles, pa.string()),
            "description": pa.array(descriptions, pa.string()),
            "topics": self._topics(pins, rng),
            "link_domain": pa.array(domains, pa.string()),
            "image": pa.array(images, pa.string()) if self.config.images else pa.nulls(n, pa.string()),
            "visual_embedding": pa.ListArray.from_arrays(
                pa.array(np.arange(n + 1) * vectors.shape[1], pa.int32()), pa.array(vectors.ravel())
            ),
        }
        return pa.table(columns, schema=PIN_SCHEMA)

    def _text(self, leaf: int, second: int, style: int, own: list[int]) -> tuple[str, str | None, str]:
        words = self.tree.words[leaf]
        other = self.tree.words[second] if second >= 0 else words
        styles = STYLE_WORDS[style]
        s, w, v = styles[own[0] % len(styles)], words[own[1] % len(words)], other[own[2] % len(other)]
        title = _TITLE_FORMS[own[3] % len(_TITLE_FORMS)].format(s=s, w=w)
        description = None
        if own[4] >= 100:  # one pin in ten says nothing more
            description = _DESCRIPTION_FORMS[own[4] % len(_DESCRIPTION_FORMS)].format(
                s=s, w=w, v=v, u=words[own[5] % len(words)], leaf=self.tree.leaves[leaf].lower()
            )
            description = description[0].upper() + description[1:]
        base = self.tree.leaves[leaf].split()[0].lower()
        return title[0].upper() + title[1:], description, f"{base}{_DOMAIN_ENDS[own[5] % 5]}.example"

    def _topics(self, pins: Pins, rng: np.random.Generator) -> pa.ListArray:
        """Declared topics: mostly the true leaves; one pin in 20 declares none, one in 30 a wrong one."""
        n = len(pins)
        fate = rng.random(n)
        wrong = rng.integers(0, len(self.tree.leaves), n)
        first = np.where(fate > 1 - 1 / 30, wrong, pins.leaf)
        none = fate < 1 / 20
        both = (pins.second >= 0) & (pins.second != first) & ~none
        lengths = np.where(none, 0, 1 + both)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        values = np.empty(offsets[-1], dtype=np.int64)
        values[offsets[:-1][~none]] = self.tree.topic_id(first[~none])
        values[offsets[:-1][both] + 1] = self.tree.topic_id(pins.second[both])
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values))


PIN_SCHEMA = pa.schema([f for f in PINS.schema if f.name != "text_embedding"])


def join(parts: list[Pins]) -> Pins:
    """Blocks of traits as one."""
    names = ("leaf", "second", "mix", "style", "quality", "created_ms", "thing")
    return Pins(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in names})
