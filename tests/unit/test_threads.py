"""Work in threads comes back in order, without more begun than is kept in mind."""

import itertools
import threading

import pytest

from data.loading import threads
from data.loading.threads import in_threads


def test_in_order_and_never_far_ahead(monkeypatch):
    monkeypatch.setattr(threads, "AHEAD", 8)
    begun = itertools.count()
    names = set()

    def work(item):
        names.add(threading.current_thread().name)
        return item, next(begun)

    asked = []
    for done, (item, _) in enumerate(in_threads(work, (asked.append(i) or i for i in range(100)))):
        assert item == done
        assert len(asked) <= done + 1 + 8
    assert len(asked) == 100
    assert threading.current_thread().name not in names


def test_what_the_work_raises_is_raised():
    def work(item):
        return 1 // item

    with pytest.raises(ZeroDivisionError):
        list(in_threads(work, [1, 0, 1]))
    assert list(in_threads(work, [])) == []
