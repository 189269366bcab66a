"""What is slow to make and asked for again: the values used last, by key."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class _Slot:
    """A value, or the place where somebody is making it."""

    turn: threading.Lock = field(default_factory=threading.Lock)
    is_made: bool = False
    value: Any = None


class LruCache:
    """The last ``size`` values; each is made once even when several threads ask, and none waits for another's."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._slots: OrderedDict[Hashable, _Slot] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:  # noqa: ANN401 (holds whatever make gives)
        """The value of ``key``, by ``make`` if there is none; what it raises is raised here, and nothing is kept."""
        with self._lock:
            slot = self._slots.setdefault(key, _Slot())
            self._slots.move_to_end(key)
            if len(self._slots) > self._size:
                self._slots.popitem(last=False)
        with slot.turn:
            if not slot.is_made:
                slot.value, slot.is_made = make(), True
            return slot.value
