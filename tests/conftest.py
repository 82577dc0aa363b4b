"""How tests are shared out between the processes of one run: by file, and some files together."""

from __future__ import annotations

import pytest

TOGETHER = {
    "tests/feature_repo/vectors/": "the one real Milvus of a machine",
    "tests/training/test_index.py": "the one real Milvus of a machine",
    "tests/training/pipelines/": "one home, whose versions count up",
}
"""By the beginning of a file's path: what its tests share."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Name every test's group for `--dist loadgroup`."""
    for item in items:
        file = item.nodeid.partition("::")[0]
        group = next((shared for path, shared in TOGETHER.items() if file.startswith(path)), file)
        item.add_marker(pytest.mark.xdist_group(group))
