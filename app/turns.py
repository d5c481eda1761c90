"""Who is analysed now, and who waits: so many videos at a time."""

from anyio import CapacityLimiter


class Turns:
    """What pools of any kind have in common. Its properties may be read from any thread."""

    def __init__(self, most: int) -> None:
        self._turns = CapacityLimiter(most)

    @property
    def running(self) -> int:
        """How many videos have their turn."""
        return int(self._turns.borrowed_tokens)

    @property
    def waiting(self) -> int:
        """How many wait for it."""
        return self._turns.statistics().tasks_waiting

    @property
    def has_time(self) -> bool:
        """Whether one more could have it at once."""
        return self._turns.available_tokens > 0 and not self.waiting
