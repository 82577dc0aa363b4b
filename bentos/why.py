"""Why a pin is in an answer, in one short line for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bentos.candidates import Candidates
from bentos.features import Card
from bentos.ids import Ids
from bentos.messages import Why
from bentos.release import ServingRelease, TopicName
from validation.tables import EntityKind

KINDS = (
    *("interest", "recent", "next", "taste", "together", "board", "topic", "popular", "similar"),
    *("words", "meaning"),
)
"""Every kind of reason; what the anchor is follows from it."""
PIN_KINDS = ("interest", "recent", "similar", "together")
TOPIC_KINDS = ("topic", "popular")

_TITLE_LENGTH = 42


def anchor_pins(candidates: Candidates) -> list[int]:
    """Pins that the reasons name; their titles have to be read."""
    named = [k in PIN_KINDS for k in candidates.kinds]
    return sorted({a for a, pin in zip(candidates.anchors.tolist(), named, strict=True) if pin and a})


def reasons(release: ServingRelease, candidates: Candidates, cards: Mapping[int, Card]) -> list[Why]:
    """One reason a candidate, in order; candidates of one kind and anchor share it. `cards` should hold
    `anchor_pins`; a title not there goes unnamed."""
    kinds, anchors = candidates.kinds, candidates.anchors.tolist()
    pins = _outside(release.ids, EntityKind.PIN, PIN_KINDS, kinds, anchors)
    topics = _outside(release.ids, EntityKind.TOPIC, TOPIC_KINDS, kinds, anchors)
    said = {
        (kind, anchor): Why(
            kind=kind,
            text=_text(kind, anchor, cards, release.topics, release.contract.board_name),
            pin_id=pins.get(anchor) if kind in PIN_KINDS else None,
            topic_id=topics.get(anchor) if kind in TOPIC_KINDS else None,
        )
        for kind, anchor in set(zip(kinds, anchors, strict=True))
    }
    return [said[given] for given in zip(kinds, anchors, strict=True)]


def _text(
    kind: str, anchor: int, cards: Mapping[int, Card], topics: Mapping[int, TopicName], board_name: str
) -> str:
    title = _short(cards[anchor].title) if anchor in cards else ""
    topic = topics[anchor].name if anchor in topics else ""
    if kind == "recent":
        return f"Because you just liked {title}" if title else "Because of what you did today"
    if kind == "interest":
        return f"Inspired by {title}" if title else "Matches one of your interests"
    if kind == "next":
        return "Follows from what you have been doing"
    if kind == "taste":
        return "Fits your taste"
    if kind == "similar":
        return f"Similar to {title}" if title else "Similar"
    if kind == "together":
        return f"Often saved with {title}" if title else "Saved together with pins like these"
    if kind == "words":
        return "Says what you searched for"
    if kind == "meaning":
        return "Close to what you searched for"
    if kind == "board":
        return f"From a {board_name} you follow"
    if kind == "topic":
        return f"Because you follow {topic}" if topic else "From a topic you follow"
    return f"Popular in {topic}" if topic else "Popular right now"


def _short(title: str) -> str:
    title = " ".join(title.split())
    return title if len(title) <= _TITLE_LENGTH else title[: _TITLE_LENGTH - 1].rstrip() + "…"


def _outside(
    ids: Ids, entity: EntityKind, named: Sequence[str], kinds: Sequence[str], anchors: Sequence[int]
) -> dict[int, int | str]:
    """The data set's own ids of the anchors whose kind is `named`."""
    wanted = sorted({anchor for kind, anchor in zip(kinds, anchors, strict=True) if anchor and kind in named})
    return dict(zip(wanted, ids.outside(entity, wanted), strict=True))
