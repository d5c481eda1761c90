"""One engine for all requests in flight: what they ask of the networks meanwhile is computed together.

Each analysis waits for one answer at a time, and the oldest question is answered first, so that a long video and
a short one take turns.
"""

import logging
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic
from typing import Protocol

import numpy as np
import torch

from app.metrics import BATCHES, COMPUTE_S
from model.engine import Kind, Run

log = logging.getLogger(__name__)


class Engine(Protocol):
    """Whatever computes for the workers; may be called from any thread."""

    def __call__(self, model: str, kind: Kind, items: np.ndarray) -> np.ndarray:
        """Put a batch through the networks of a model, see `model.engine.Networks`."""

    def close(self) -> None:
        """No more will be asked."""


@dataclass(slots=True, eq=False)
class _Question:
    model: str
    kind: Kind
    items: np.ndarray
    answer: Future[np.ndarray] = field(default_factory=Future)
    asked_s: float = field(default_factory=monotonic)

    def goes_with(self, other: "_Question") -> bool:
        """Whether one batch can hold both: nothing is padded, so that answers do not depend on the company."""
        return (self.model, self.kind, self.items.shape[1:]) == (other.model, other.kind, other.items.shape[1:])


class BatchingEngine:
    """Answers in a thread of its own, up to ``most`` questions at once; waits up to ``wait_s`` for company.

    ``runs``, by model, are called from that thread only. Where one runs out of the device's memory, the batch is
    halved.
    """

    def __init__(self, runs: Mapping[str, Run], most: int, wait_s: float) -> None:
        self._runs = runs
        self._most = most
        self._wait_s = wait_s
        self._asked: SimpleQueue[_Question | None] = SimpleQueue()
        self._waiting: list[_Question] = []
        self.batch_sizes: list[int] = [0] * (most + 1)
        self._thread = Thread(target=self._answer_all, name="engine", daemon=True)
        self._thread.start()

    def __call__(self, model: str, kind: Kind, items: np.ndarray) -> np.ndarray:
        """What ``runs[model](kind, items)`` returns or raises. From any thread."""
        question = _Question(model, kind, items)
        self._asked.put(question)
        return question.answer.result()

    def close(self) -> None:
        """Answer what was asked, then stop."""
        self._asked.put(None)
        self._thread.join()

    def _answer_all(self) -> None:
        open_ = True
        while open_ or self._waiting:
            open_ = self._gather() and open_
            if self._waiting:
                self._answer(self._next_batch())

    def _gather(self) -> bool:
        """Take what was asked; wait for more unless a batch is full or its first question has waited enough."""
        while len(self._batch()) < self._most:
            patience = self._waiting[0].asked_s + self._wait_s - monotonic() if self._waiting else None
            try:
                question = self._asked.get(timeout=max(0.0, patience)) if patience is not None else self._asked.get()
            except Empty:
                return True
            if question is None:
                return False
            self._waiting.append(question)
        return True

    def _batch(self) -> list[_Question]:
        return [question for question in self._waiting if question.goes_with(self._waiting[0])][: self._most]

    def _next_batch(self) -> list[_Question]:
        batch = self._batch()
        self._waiting = [question for question in self._waiting if question not in batch]
        return batch

    def _answer(self, batch: list[_Question]) -> None:
        self.batch_sizes[len(batch)] += 1
        BATCHES.labels(batch[0].kind).observe(len(batch))
        began = monotonic()
        try:
            run = self._runs[batch[0].model]
            answers = run(batch[0].kind, np.concatenate([question.items for question in batch]))
        except torch.OutOfMemoryError as error:
            self._answer_in_halves(batch, error)
        except Exception as error:
            for question in batch:
                question.answer.set_exception(error)
        else:
            COMPUTE_S.labels(batch[0].kind).inc(monotonic() - began)
            ends = np.cumsum([len(question.items) for question in batch])
            for question, answer in zip(batch, np.split(answers, ends[:-1])):
                question.answer.set_result(answer)

    def _answer_in_halves(self, batch: list[_Question], error: torch.OutOfMemoryError) -> None:
        if len(batch) == 1:
            batch[0].answer.set_exception(error)
            return
        log.warning("the device is out of memory for %d at once; half of them at a time", len(batch))
        torch.cuda.empty_cache()
        middle = len(batch) // 2
        self._answer(batch[:middle])
        self._answer(batch[middle:])
