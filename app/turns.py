"""Who is analysed now, and who waits: so many videos at a time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic

from anyio import CapacityLimiter

from app.metrics import STAGE_S
from app.tracing import tracer


class Turns:
    """What pools of any kind have in common. Its properties may be read from any thread."""

    def __init__(self, most: int) -> None:
        self._turns = CapacityLimiter(most)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, and have it. From the event loop's thread."""
        came = monotonic()
        with tracer.start_as_current_span("waiting"):
            await self._turns.acquire_on_behalf_of(turn := object())
        STAGE_S.labels("waiting").observe(monotonic() - came)
        try:
            yield
        finally:
            self._turns.release_on_behalf_of(turn)

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
