"""The command ``lipsync``; ``lipsync --help`` says what it can."""

import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Protocol

import httpx
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from app import outcomes
from app.client import Client, OnEvent, Parameters, ServiceError
from app.outcomes import EXIT_FAILED, Failure, Outcome, find_videos, printable, read_outcomes, still_holds
from app.schemas import AnalysisResponse
from app.schemas import Progress as Reached
from model.errors import MediaError
from model.options import FACES_RANGE, HOP_RANGE_S, HOP_S, MAX_FACES, WINDOW_RANGE_S, WINDOW_S
from model.results import VERSION

ROOT = Path(__file__).parent.parent
EXIT_INTERRUPTED, EXIT_BROKEN_PIPE = 130, 141

PATIENCE = 30
"""How often a service that is busy is asked again."""

WIDTH = 160
"""Of a table that does not go to a terminal, in characters."""

cli = typer.Typer(
    name="lipsync",
    help="Tells whether a talking face in a video is a lip-sync fake. A verdict is a lead, not a proof.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

WindowS = Annotated[float, typer.Option(min=WINDOW_RANGE_S[0], max=WINDOW_RANGE_S[1], help="Length of a window, in s.")]
HopS = Annotated[float, typer.Option(min=HOP_RANGE_S[0], max=HOP_RANGE_S[1], help="From window to window, in s.")]
MaxFaces = Annotated[int, typer.Option(min=FACES_RANGE[0], max=FACES_RANGE[1], help="Most faces in one picture.")]
Device = Annotated[
    str | None,
    typer.Option(envvar="LIPSYNC_DEVICE", help="cpu, cuda or cuda:N. Default: CUDA when there is one, else the CPU."),
]
Url = Annotated[
    str | None, typer.Option(metavar="URL", help="Ask this service, http://host:port, instead of analysing here.")
]
Data = Annotated[Path, typer.Option(exists=True, file_okay=False, help="Folder of clips.")]
Cache = Annotated[Path, typer.Option(help="Where prepared clips are kept.")]


class Stop(Exception):
    """Ends the command with a sentence for people."""


class Analyst(Protocol):
    """Whoever analyses: `app.local.LocalDetector`, or a service. ``version``: of the detector."""

    version: str

    def analyze(self, path: Path, on_event: OnEvent, parameters: Parameters) -> AnalysisResponse:
        """The answer for a file."""


def main() -> None:
    """Run the command; whatever goes wrong is one sentence on standard error, and a non-zero exit status."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")
    try:
        cli()
    except Exception as error:
        if os.environ.get("LIPSYNC_LOG_LEVEL", "").lower() == "debug":
            traceback.print_exc()
        sys.exit(_say(explained(error)))


def explained(error: Exception) -> str:
    """What is wrong, for people."""
    if isinstance(error, Stop):
        return str(error)
    if isinstance(error, ValidationError) and error.title == "Settings":
        from app.settings import explain

        return explain(error)
    if failure := failure_of(error):
        return failure.detail
    return f"Unexpected: {type(error).__name__}: {error}. LIPSYNC_LOG_LEVEL=debug shows where."


def failure_of(error: Exception) -> Failure | None:
    """Why a file could not be analysed, if it is such an error."""
    match error:
        case ServiceError():
            return Failure(code=error.code, detail=error.detail)
        case MediaError():
            return Failure(code=error.code, detail=str(error))
        case httpx.HTTPError() | httpx.InvalidURL():
            return Failure(code="unreachable", detail=f"The service can't be reached, or broke off: {error}.")
        case OSError():
            return Failure(code="unreadable", detail=f"{error.filename or 'File'}: {error.strerror or error}.")
    if type(error).__name__ == "Problem":  # of `app.problems`, which is not imported for its own sake: FastAPI is slow
        return Failure(code=error.code, detail=error.detail)
    return None
