"""One actor runs at a time; which one goes on after each store call is drawn from a seed."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Sequence


class Baton:
    """Actors call `step` before each store call and `leave` when they end."""

    def __init__(self, rng: random.Random, actors: Iterable[int]) -> None:
        self._rng = rng
        self._alive = set(actors)
        self._ready: set[int] = set()
        self._running = False
        self._lock = threading.Lock()
        self._turns = {actor: threading.Semaphore(0) for actor in self._alive}

    def step(self, me: int) -> None:
        """Wait until it is this actor's turn."""
        with self._lock:
            self._running = False
            self._ready.add(me)
            self._pass_on()
        self._turns[me].acquire()

    def leave(self, me: int) -> None:
        """Take the actor out of the game."""
        with self._lock:
            self._running = False
            self._alive.discard(me)
            self._ready.discard(me)
            self._pass_on()

    def _pass_on(self) -> None:
        """Draw the next actor once everybody who is alive stands at a store call."""
        if not self._running and self._ready and self._ready == self._alive:
            drawn = self._rng.choice(sorted(self._ready))
            self._ready.discard(drawn)
            self._running = True
            self._turns[drawn].release()


def play(parts: Sequence[Callable[[], None]], baton: Baton) -> None:
    """Let actors 0, 1, … play their parts at once, by turns. What one raises is raised when all have ended."""
    broken: list[Exception] = []

    def live(me: int) -> None:
        try:
            baton.step(me)
            parts[me]()
        except Exception as error:  # noqa: BLE001 - raised again below, in the main thread
            broken.append(error)
        finally:
            baton.leave(me)

    threads = [threading.Thread(target=live, args=(me,)) for me in range(len(parts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if broken:
        raise broken[0]
