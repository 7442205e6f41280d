"""The event loop looks again before it sleeps where that pays, and does not burn time where it does not."""

from __future__ import annotations

from leveret.broker.server.patience import REST_MAX, SPIN_S, Patience

LOOK_S = SPIN_S / 8  # what one look takes
EVENTS = [(7, 1)]


class Network:
    """Becomes ready so long after each wait began, and counts who slept and who looked."""

    def __init__(self, ready_after_s: float) -> None:
        self.ready_after_s = ready_after_s
        self.now_s = 0.0
        self.waiting_since_s = 0.0
        self.looks = 0
        self.sleeps = 0

    def now(self) -> float:
        """Return the time."""
        return self.now_s

    def poll(self, timeout_s: float, _: int) -> list[tuple[int, int]]:
        """Return events if there are any by now."""
        assert timeout_s == 0
        self.looks += 1
        self.now_s += LOOK_S
        return EVENTS if self.now_s >= self.waiting_since_s + self.ready_after_s else []

    def wait(self, patience: Patience, times: int = 1) -> None:
        """Wait some times, as the loop does: look, and else sleep."""
        for _ in range(times):
            self.waiting_since_s = self.now_s
            if not patience.look():
                self.sleeps += 1
                self.now_s = max(self.now_s, self.waiting_since_s + self.ready_after_s)


def test_it_does_not_sleep_where_the_next_request_comes_at_once() -> None:
    network = Network(ready_after_s=SPIN_S / 2)
    patience = Patience(network.poll, network.now)
    network.wait(patience, 100)
    assert network.sleeps == 0


def test_it_sleeps_nearly_always_where_requests_come_later() -> None:
    network = Network(ready_after_s=SPIN_S * 10)
    patience = Patience(network.poll, network.now)
    network.wait(patience)
    network.looks = network.sleeps = 0
    network.wait(patience, 10 * (REST_MAX + 1))
    assert network.sleeps == 10 * (REST_MAX + 1)
    assert network.looks <= 10 * (SPIN_S / LOOK_S + 1)


def test_it_soon_finds_out_that_requests_come_at_once_again() -> None:
    network = Network(ready_after_s=SPIN_S * 10)
    patience = Patience(network.poll, network.now)
    network.wait(patience, 500)
    network.ready_after_s = SPIN_S / 2
    network.wait(patience, 2 * REST_MAX)
    network.sleeps = 0
    network.wait(patience, 100)
    assert network.sleeps == 0
