"""The service with a stand-in for the science, and what its answers look like."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event, Lock

import httpx
from anyio import CapacityLimiter, to_thread
from conftest import Live, running, wait_for

from app.main import create_app
from app.problems import KINDS
from app.settings import Allowance, Settings
from model import Analysis, DetectorInfo
from model.progress import Follow
from model.results import Media, Reason, Sync, Timing

INFO = DetectorInfo("stand-in", "0", "cpu", {"w": "1234"}, {"real_below": 0.5, "fake_above": 0.5})
ANALYSIS = Analysis(
    verdict="inconclusive",
    fake_probability=None,
    reasons=(Reason("no_face", "There is no face."),),
    sync=Sync(None, None),
    windows=(),
    tracks=(),
    media=Media(1.0, 2, 2, 25.0, "h264", None, None, "00"),
    timing_ms=Timing(0.0, 0.0, 0.0, 0.0),
    warnings=(),
)


class Held:
    """An analysis that goes on until it is let go, and counts."""

    def __init__(self) -> None:
        self.let_go = Event()
        self.begun = self.running = self.most = 0
        self._lock = Lock()

    def __call__(self, path: str, options: dict) -> Analysis:
        with self._lock:
            self.begun += 1
            self.running += 1
            self.most = max(self.most, self.running)
        assert self.let_go.wait(30)
        with self._lock:
            self.running -= 1
        return ANALYSIS


class StandIn:
    """A pool whose workers are threads that call ``analyze``."""

    models = {"default": INFO}
    running = waiting = 0

    def __init__(self, settings: Settings, analyze: Callable[[str, dict], Analysis]) -> None:
        self._turns = CapacityLimiter(settings.max_concurrent)
        self._analyze = analyze

    async def analyze(
        self, model: str, path: str, options: dict, allowance: Allowance, follow: Follow | None = None
    ) -> Analysis:
        work = partial(self._analyze, path, options)
        return await to_thread.run_sync(work, limiter=self._turns, abandon_on_cancel=True)

    def memory_bytes(self) -> int:
        return 0

    def close(self) -> None:
        pass


@contextmanager
def stand_in(temp_dir: Path, analyze: Callable[[str, dict], Analysis], **settings: object) -> Iterator[Live]:
    """The service, ready, with ``analyze``."""
    settings = {"port": 0, "temp_dir": temp_dir, **settings}
    with running(create_app(Settings(**settings), load=lambda settings: StandIn(settings, analyze))) as live:
        wait_for(lambda: live.get("/healthz").status_code == 200)
        yield live


def assert_problem(response: httpx.Response, status: int, code: str) -> dict:
    """The response is the problem ``code``, in the shape that all problems have."""
    problem = response.json()
    assert (response.status_code, problem["code"]) == (status, code)
    assert response.headers["content-type"] == "application/problem+json"
    assert problem == {
        "type": f"urn:problem-type:lipsync:{code}",
        "title": KINDS[code].title,
        "status": status,
        "detail": problem["detail"],
        "code": code,
        "request_id": response.headers["x-request-id"],
    }
    assert problem["detail"] and problem["request_id"]
    assert ("retry-after" in response.headers) == (status == 503)
    assert int(response.headers.get("retry-after", 1)) > 0
    return problem
