"""The online store beyond one machine: packed rows in Redis, one string key a row, read by MGET."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
from feast import Entity, FeatureView, RepoConfig
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig, RedisType
from pydantic import StrictStr

from feature_repo.online.layout import stamp
from feature_repo.online.packed import PackedOnlineStore, Question

_WRITE_ROWS = 500
"""Rows a script call: Redis serves nobody else while a script runs."""

_NAME_END = 9
"""Bytes of a key after its space: a colon and the id."""

_WRITE = """
local expiry = tonumber(ARGV[1])
local written = 0
for i, key in ipairs(KEYS) do
  local row = ARGV[i + 1]
  local event, created = struct.unpack('<i8i8', row)
  local stored = redis.call('GETRANGE', key, 0, 15)
  local newer = true
  if #stored == 16 then
    local old_event, old_created = struct.unpack('<i8i8', stored)
    newer = event > old_event or (event == old_event and created >= old_created)
  end
  if newer then
    if expiry > 0 then redis.call('SET', key, row, 'EX', expiry) else redis.call('SET', key, row) end
    written = written + 1
  end
end
return written
"""
"""Compare and set in one step: two writers of one row end with the newer one, whatever their order.
Times are below 2^53 us, so that Lua's doubles hold them exactly."""


class PackedRedisOnlineStoreConfig(RedisOnlineStoreConfig):
    """Store configuration: `type` is this store's full name; the rest as in Feast's Redis store."""

    type: StrictStr = "feature_repo.online.redis.PackedRedisOnlineStore"  # type: ignore[assignment]


class PackedRedisOnlineStore(PackedOnlineStore, RedisOnlineStore):
    """Rows under `<project>:<view>:<space>:` and the id's eight bytes (no space: `<project>:<view>::`)."""

    def read_rows(self, config: RepoConfig, questions: Sequence[Question]) -> list[list[bytes | None]]:
        names: list[bytes] = []
        for question in questions:
            names += _names(config, question.view, question.ids, question.space)
        if not names:
            return [[] for _ in questions]
        client = self._get_client(config.online_store)
        cluster = config.online_store.redis_type == RedisType.redis_cluster
        rows = iter(client.mget_nonatomic(names) if cluster else client.mget(names))
        return [list(islice(rows, len(question.ids))) for question in questions]

    def write_rows(
        self,
        config: RepoConfig,
        view: FeatureView,
        ids: Sequence[int],
        rows: Sequence[bytes],
        space: str | None = None,
    ) -> None:
        client, expiry = self._get_client(config.online_store), config.online_store.key_ttl_seconds or 0
        latest: dict[bytes, bytes] = {}
        for name, row in zip(_names(config, view, ids, space), rows, strict=True):
            if name not in latest or stamp(row) >= stamp(latest[name]):
                latest[name] = row
        # A script may only touch keys of one slot: in a cluster each row goes alone.
        size = 1 if config.online_store.redis_type == RedisType.redis_cluster else _WRITE_ROWS
        items = list(latest.items())
        script = client.register_script(_WRITE)
        for start in range(0, len(items), size):
            some = items[start : start + size]
            script(keys=[name for name, _ in some], args=[expiry, *(row for _, row in some)])

    def spaces(self, config: RepoConfig, view: FeatureView) -> dict[str, int]:
        client, prefix = self._get_client(config.online_store), _prefix(config, view)
        cluster = config.online_store.redis_type == RedisType.redis_cluster
        sizes: dict[str, int] = {}
        for names in _batches(client.scan_iter(_escaped(prefix) + b"*", count=1000)):
            rows = client.mget_nonatomic(names) if cluster else client.mget(names)
            for name, row in zip(names, rows, strict=True):
                space = name[len(prefix) : -_NAME_END].decode()
                if space:
                    sizes[space] = sizes.get(space, 0) + len(row or b"")
        return sizes

    def drop_space(self, config: RepoConfig, view: FeatureView, space: str) -> None:
        self._unlink(config, _prefix(config, view) + space.encode() + b":")

    def delete_rows(
        self, config: RepoConfig, view: FeatureView, ids: Sequence[int], space: str | None = None
    ) -> None:
        client = self._get_client(config.online_store)
        for name in _names(config, view, ids, space):  # one by one: in a cluster each has a slot of its own
            client.delete(name)

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,
    ) -> None:
        for view in tables_to_keep:
            self.check(view)
        if config.online_store.full_scan_for_deletion:
            for view in tables_to_delete:
                self.delete_table(config, view)

    def delete_table(self, config: RepoConfig, table: FeatureView) -> None:
        self._unlink(config, _prefix(config, table))

    def _unlink(self, config: RepoConfig, prefix: bytes) -> None:
        client = self._get_client(config.online_store)
        for names in _batches(client.scan_iter(_escaped(prefix) + b"*", count=1000)):
            client.unlink(*names)

    def teardown(self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]) -> None:
        for table in tables:
            self.delete_table(config, table)


def _prefix(config: RepoConfig, view: FeatureView) -> bytes:
    return f"{config.project}:{view.name}:".encode()


def _names(config: RepoConfig, view: FeatureView, ids: Sequence[int], space: str | None) -> list[bytes]:
    prefix = _prefix(config, view) + (space or "").encode() + b":"
    raw = np.asarray(ids, dtype="<i8").tobytes()
    return [prefix + raw[i : i + 8] for i in range(0, len(raw), 8)]


def _escaped(prefix: bytes) -> bytes:
    """`prefix` as a literal inside a Redis glob."""
    return b"".join(b"\\" + bytes([c]) if c in b"*?[]\\" else bytes([c]) for c in prefix)


def _batches(names: Iterator[bytes], size: int = 1000) -> Iterator[list[Any]]:
    batch: list[Any] = []
    for name in names:
        batch.append(name)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
