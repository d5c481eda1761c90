"""What the ingress has instead of worker processes: decoders, wherever they are, and another one when one is lost."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from typing import Any

import ray
from anyio import to_thread
from ray.exceptions import RayActorError, RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from app.problems import Problem
from app.settings import Allowance, Settings
from app.turns import Turns
from model import Analysis, DetectorInfo
from model.progress import Follow, Progress
from model.results import Window

log = logging.getLogger(__name__)

PIECE_BYTES = 8 << 20
"""Of an upload, in the object store."""

MOST_ATTEMPTS = 5
"""A video whose decoder is lost so often is given up."""

PAUSE_S = 1.0

LOST = (RayActorError, RayError, RayServeException, ConnectionError)
"""What a call ends with when the process or the machine at its other end is gone."""

Message = tuple[str, Any]
"""From a decoder: "tell" how far it is; at last "done" with an `Analysis`, "refused" with a `MediaError`, or "problem"
with code and detail."""

Decode = Callable[[list[ray.ObjectRef], str, dict[str, Any], Allowance, bool], AsyncGenerator[Message, None]]
"""Video in pieces, model, options, allowance, whether to tell."""


class RemotePool(Turns):
    """As `app.pool.Pool`, in the event loop's thread; at most ``max_concurrent`` videos at a time are at decoders."""

    def __init__(self, models: dict[str, DetectorInfo], decode: Decode, settings: Settings) -> None:
        super().__init__(settings.max_concurrent)
        self.models = models
        self._decode = decode

    def memory_bytes(self) -> int:
        """Of workers in this process' care: there are none."""
        return 0

    async def analyze(
        self, model: str, path: str, options: dict[str, Any], allowance: Allowance, follow: Follow | None = None
    ) -> Analysis:
        """Have one video analysed, by another decoder if one is lost. When this is cancelled, so is the work.

        Raises MediaError when the video can't be analysed, Problem when a decoder fails at it.
        """
        follow = Onwards(follow) if follow else None
        async with self.turn():
            pieces = await to_thread.run_sync(_in_pieces, path)
            for attempt in range(1, MOST_ATTEMPTS + 1):
                try:
                    return await self._attempt(pieces, model, options, allowance, follow)
                except LOST as error:
                    log.warning("attempt %d: a decoder was lost: %s", attempt, type(error).__name__)
                    await asyncio.sleep(PAUSE_S)
                    if follow:
                        follow.begin_again()
        raise Problem("busy", "The machines that analyse are being lost again and again. Try again later.")

    async def _attempt(
        self,
        pieces: list[ray.ObjectRef],
        model: str,
        options: dict[str, Any],
        allowance: Allowance,
        follow: Follow | None,
    ) -> Analysis:
        async for tag, payload in self._decode(pieces, model, options, allowance, follow is not None):
            if tag == "done":
                return payload
            if tag == "refused":
                raise payload
            if tag == "problem":
                raise Problem(*payload)
            if follow:
                follow(payload)
        raise ConnectionError("the decoder ended without an answer")

    def close(self) -> None:
        """Nothing is to be ended here."""


class Onwards:
    """Tells ``follow`` of a work that may begin again: the share never falls, and no window is told twice."""

    def __init__(self, follow: Follow) -> None:
        self._follow = follow
        self._share = 0.0
        self._windows_told = self._windows_now = 0

    def begin_again(self) -> None:
        """What is told from now on was told before, in part."""
        self._windows_now = 0

    def __call__(self, thing: Progress | tuple[Window, ...]) -> None:
        if isinstance(thing, Progress):
            self._share = max(self._share, thing.share)
            return self._follow(replace(thing, share=self._share))
        known = max(0, self._windows_told - self._windows_now)
        self._windows_now += len(thing)
        self._windows_told = max(self._windows_told, self._windows_now)
        if new := thing[known:]:
            self._follow(new)


def decode_by(decoder: DeploymentHandle) -> Decode:
    """By whichever replica has time."""
    streaming = decoder.options(stream=True)

    async def decode(*what: Any) -> AsyncGenerator[Message, None]:
        answers = streaming.analyze.remote(*what)
        try:
            async for message in answers:
                yield message
        except BaseException:
            answers.cancel()
            raise

    return decode


def _in_pieces(path: str) -> list[ray.ObjectRef]:
    with open(path, "rb") as file:
        return [ray.put(piece) for piece in iter(lambda: file.read(PIECE_BYTES), b"")]
