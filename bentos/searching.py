"""A query on its way in, and what an answer says of it."""

from __future__ import annotations

from bentos.errors import EmptyQuery, NoSearch, QueryTooLong
from bentos.feed import Feed
from bentos.messages import Correction, QueryReport
from bentos.release import ServingRelease
from bentos.sources import lexical, searchsage
from training.models.lexical import Reading
from validation.queries import MAX_QUERY, normal


def searchable(release: ServingRelease, query: str) -> str:
    """The query in normal spelling. Raises EmptyQuery, QueryTooLong, and NoSearch for a release without both
    parts of search."""
    check_length("query", query)
    text = normal(query)
    check_length("query in its normal spelling", text)
    if not text:
        raise EmptyQuery("query is blank; name what to search for, or ask /homefeed for a feed")
    without = release.cannot_search_by
    if len(without) == 2:
        raise NoSearch(
            f"release {release.version} has neither {searchsage.NAME} nor {lexical.NAME} to search with"
            f" ({'; '.join(without)}); run `corkboard train`, release and promote"
        )
    return text


def check_length(name: str, text: str) -> None:
    """Raises QueryTooLong."""
    if len(text) > MAX_QUERY:
        raise QueryTooLong(f"{name} has {len(text)} characters; send at most {MAX_QUERY}")


def query_of(feed: Feed) -> QueryReport | None:
    """What an answer says of its query; None where there is none."""
    if not feed.query:
        return None
    reading = feed.reading or Reading(())
    return QueryReport(
        text=feed.query,
        corrected=[
            Correction(typed=typed, read=read, sure=typed not in reading.unsure)
            for typed, read in reading.corrected
        ],
        unknown=list(reading.unknown),
        without=feed.release.cannot_search_by,
    )
