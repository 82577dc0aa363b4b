"""One Milvus by URI: Lite's server process and a real server alike, through one pymilvus path.

What differs between the two is asked of the server once (`Milvus.lite`) and decides two things only: the
index type (Lite walks every row in Python whatever the index, and its HNSW misses most hits of a narrow
filter, so it gets exact FLAT; a server gets HNSW) and whether a full-looking answer may be trusted.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from feature_repo.vectors.collection import MilvusIndex
from feature_repo.vectors.index import CollectionMissing, VectorIndexError
from feature_repo.vectors.rows import MAX_TOPICS
from feature_repo.vectors.server import MilvusUnreachable, shown

if TYPE_CHECKING:
    from pymilvus import MilvusClient

HNSW_M = 16
HNSW_EF_CONSTRUCTION = 200

LOAD_PATIENCE_S = 90.0
"""A real server that was killed answers a first load with an error and recovers within about a minute."""

_CALL_TIMEOUT_S = 120.0


def connect(uri: str, *, timeout_s: float = 10.0) -> Milvus:
    """A connection of its own to the Milvus at `uri`. Raises MilvusUnreachable.

    `http://host:port`, or `https://user:password@host:port` for a server with accounts.
    """
    from pymilvus import MilvusClient
    from pymilvus.exceptions import MilvusException

    if "://" not in uri:
        raise MilvusUnreachable(
            f"{shown(uri)!r} is not a Milvus address; give http://host:port "
            "(Milvus Lite too runs as a server process: python -m feature_repo.vectors.server)"
        )
    # Both flavours lack the iterator's snapshot time and pymilvus says so at every scan; rows are scanned by
    # rising id and written by one process, so the fallback it names is right.
    logging.getLogger("pymilvus.client.iterator.query_iterator").setLevel(logging.ERROR)
    # Every failed call is raised as well; those that are tried again are nobody's trouble.
    logging.getLogger("pymilvus.decorators").setLevel(logging.CRITICAL)
    try:
        # Not pymilvus' shared connection of this address, which may belong to a server that is gone.
        client = MilvusClient(uri=uri, timeout=timeout_s, dedicated=True)
        version = client.get_server_version()
    except MilvusException as refused:
        raise MilvusUnreachable(f"no Milvus answers at {shown(uri)}: {refused.message}") from refused
    return Milvus(shown(uri), client, str(version))


class Milvus:
    """Collections of pins on one Milvus. Definitions (create, drop) are for one writer at a time."""

    def __init__(self, uri: str, client: MilvusClient, version: str) -> None:
        self.uri = uri
        self.client = client
        self.version = version

    @property
    def lite(self) -> bool:
        """True for Milvus Lite's server process."""
        return self.version.startswith("milvus_lite")

    def close(self) -> None:
        self.client.close()

    def collections(self) -> tuple[str, ...]:
        """Names of the collections here, sorted; aliases are not among them."""
        return tuple(sorted(self.client.list_collections()))

    def exists(self, name: str) -> bool:
        """True for a collection of this real name (an alias is not one)."""
        return name in self.client.list_collections()

    def create(self, name: str, dim: int) -> MilvusIndex:
        """Make the collection with its index, empty and loaded; opens it if it is there with this dimension.

        The index comes before the rows: built afterwards, on a large collection, the call outlives its
        connection and reports a failure although it worked. Raises VectorIndexError if the collection
        exists with another dimension.
        """
        from pymilvus import DataType, MilvusClient

        if self.exists(name):
            index = self.open(name)
            if index.dim != dim:
                raise VectorIndexError(
                    f"collection {name} on {self.uri} holds {index.dim}-d vectors, not {dim}-d; "
                    "a space never changes its dimension: train a new version"
                )
            return index
        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("pin_id", DataType.INT64, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dim)
        schema.add_field("topics", DataType.ARRAY, element_type=DataType.INT64, max_capacity=MAX_TOPICS)
        schema.add_field("created_at_ms", DataType.INT64)
        schema.add_field("quality", DataType.DOUBLE)
        schema.add_field("digest", DataType.INT64)
        params = self.client.prepare_index_params()
        if self.lite:
            params.add_index(field_name="vector", index_type="FLAT", metric_type="IP")
        else:
            build = {"M": HNSW_M, "efConstruction": HNSW_EF_CONSTRUCTION}
            params.add_index(field_name="vector", index_type="HNSW", metric_type="IP", params=build)
        self.client.create_collection(name, schema=schema, index_params=params, timeout=_CALL_TIMEOUT_S)
        return self.open(name)

    def open(self, name: str, *, consistency: str = "Bounded") -> MilvusIndex:
        """The collection, loaded. `consistency` of its reads: Bounded to serve, Strong right after writes.

        Raises CollectionMissing for an absent name or an alias.
        """
        if not self.exists(name):
            raise CollectionMissing(
                f"no collection {name} on {self.uri}; it holds {', '.join(self.collections()) or 'none'}"
            )
        self._load(name)
        fields = {f["name"]: f for f in self.client.describe_collection(name)["fields"]}
        return MilvusIndex(
            self.client,
            name,
            dim=int(fields["vector"]["params"]["dim"]),
            exact=self.lite,
            consistency=consistency,
        )

    def reopen(self, name: str, *, consistency: str = "Strong") -> MilvusIndex:
        """Release the collection from memory and load it again from storage: what a restart would serve."""
        self.client.release_collection(name, timeout=_CALL_TIMEOUT_S)
        return self.open(name, consistency=consistency)

    def drop(self, name: str) -> None:
        """Delete the collection and its rows for good.

        Refuses anything but a real collection's name: on Milvus Lite, dropping an alias drops what it
        points at. Raises CollectionMissing.
        """
        if not self.exists(name):
            raise CollectionMissing(
                f"{name} is not a collection on {self.uri} (aliases are not dropped here); nothing was deleted"
            )
        self.client.drop_collection(name, timeout=_CALL_TIMEOUT_S)

    def wait_indexed(self, name: str, timeout_s: float = 1800.0) -> None:
        """Return once the vector index covers the flushed rows. Raises VectorIndexError after `timeout_s`.

        `pending_index_rows` is not waited for: it stays above zero for minutes after a compaction.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            state: dict[str, Any] = self.client.describe_index(name, index_name="vector") or {}
            if state.get("state", "Finished") == "Finished":
                return
            if time.monotonic() > deadline:
                raise VectorIndexError(f"{name}: the index is still {state['state']} after {timeout_s:.0f} s")
            time.sleep(0.5)

    def _load(self, name: str) -> None:
        from pymilvus.exceptions import MilvusException

        deadline = time.monotonic() + LOAD_PATIENCE_S
        while True:
            try:
                self.client.load_collection(name, timeout=_CALL_TIMEOUT_S)
                return
            except MilvusException as failed:
                if time.monotonic() > deadline:
                    raise VectorIndexError(f"{name} on {self.uri} does not load: {failed.message}") from failed
                time.sleep(2.0)
