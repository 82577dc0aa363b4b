"""An alarm rings when it was set to last, and wakes nobody before."""

from __future__ import annotations

import threading
import time

from bentos.alarm import Alarm


def test_it_rings_when_it_was_set_to_last() -> None:
    alarm = Alarm()
    began = time.perf_counter()
    alarm.set(0.01)
    alarm.set(0.06)
    alarm.wait()
    assert time.perf_counter() - began >= 0.06


def test_one_that_is_not_set_does_not_ring() -> None:
    alarm, rang = Alarm(), threading.Event()

    def listen() -> None:
        alarm.wait()
        rang.set()

    waits = threading.Thread(target=listen, daemon=True)
    waits.start()
    assert not rang.wait(0.03)
    alarm.set(60)
    alarm.set(0)  # sooner than before wakes whoever waits
    assert rang.wait(10)
    waits.join()
