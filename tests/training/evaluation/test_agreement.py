"""Agreement of one feature, online and offline: counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from training.evaluation.agreement import Tolerance, agreement

NAN = np.float32(np.nan)


def test_every_way_to_agree_or_not_is_counted() -> None:
    online = np.array([1, 0, NAN, NAN, 5, 2.00001, NAN, 7], np.float32)
    offline = np.array([1, NAN, 0, 4, NAN, 2, NAN, 4], np.float32)
    found = agreement("clicks", online, offline, Tolerance(1e-6, 1e-5))
    assert (found.rows, found.equal, found.within) == (8, 4, 1), "unknown is read as 0"
    assert (found.missing_online, found.missing_offline, found.differing) == (1, 1, 1)
    assert found.largest == pytest.approx(3) and found.worst == 4
    assert found.share == pytest.approx(5 / 8)


def test_what_agrees_everywhere_has_no_worst_row() -> None:
    values = np.arange(4, dtype=np.float32)
    found = agreement("clicks", values, values, Tolerance(0, 0))
    assert found.worst is None and found.share == 1 and found.largest == 0
