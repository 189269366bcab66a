import threading

import pytest

from app.services.lru_cache import LruCache


def test_a_value_is_made_once_and_the_one_used_longest_ago_goes():
    cache, made = LruCache(2), []
    for key in "abacab":
        assert cache.get(key, lambda key=key: made.append(key) or key * 2) == key * 2
    assert made == ["a", "b", "c", "b"]


def test_what_could_not_be_made_is_tried_again():
    cache = LruCache(1)
    with pytest.raises(ZeroDivisionError):
        cache.get("a", lambda: 1 / 0)
    assert cache.get("a", lambda: 5) == 5


def test_nobody_waits_for_the_value_of_another_key_and_all_get_the_one_that_is_made():
    cache, is_asked, may_go = LruCache(4), threading.Event(), threading.Event()

    def slow():
        is_asked.set()
        assert may_go.wait(20)
        return object()

    found = []
    threads = [threading.Thread(target=lambda: found.append(cache.get("slow", slow))) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert is_asked.wait(20)
    assert cache.get("quick", lambda: 1) == 1  # while the other is being made
    may_go.set()
    for thread in threads:
        thread.join(20)
    assert len(found) == 3 and len(set(found)) == 1
