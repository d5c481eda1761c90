"""The command ``lipsync``; ``lipsync --help`` says what it can."""

import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Protocol

import httpx
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

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
    add_completion=False,
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
        _say(explained(error))
        sys.exit(EXIT_FAILED)


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
            return Failure(
                code="unreachable", detail=f"The service can't be reached, or broke off: {str(error).rstrip('.')}."
            )
        case OSError():
            detail = f"{error.filename}: {error.strerror}." if error.filename else str(error)
            return Failure(code="unreadable", detail=detail)
    return None


# --------------------------------------------------------------------------------------------------------------
# analyze
# --------------------------------------------------------------------------------------------------------------


API_KEY = "LIPSYNC_API_KEY"
"""Variable with the key for a service; not an option, which whoever lists processes could read."""


class RemoteDetector:
    """The service at ``url``. What is too much for it while somebody waits, it does as a job."""

    TOO_MUCH = ("too_long", "upload_too_large")

    def __init__(self, url: str) -> None:
        self._client = Client(url, api_key=os.environ.get(API_KEY), retries=PATIENCE)

    def __enter__(self) -> "RemoteDetector":
        self.version = self._client.health().version
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def analyze(self, path: Path, on_event: OnEvent, parameters: Parameters) -> AnalysisResponse:
        """Raises ServiceError, httpx.TransportError, OSError."""
        try:
            return self._client.analyze(path, on_event=on_event, **parameters)
        except ServiceError as error:
            if error.code not in self.TOO_MUCH:
                raise
        job = self._client.submit(path, **parameters)
        try:
            over = self._client.wait(job.job_id, on_event=on_event)
        finally:
            with suppress(ServiceError, httpx.TransportError):
                self._client.forget(job.job_id)
        if over.result is None:
            raise ServiceError(over.problem)
        return over.result


class Bars:
    """How far the list and the current file are, on standard error if that is a terminal and ``wanted``."""

    def __init__(self, files: int, wanted: bool) -> None:
        console = Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            redirect_stdout=False,
            disable=not (wanted and console.is_terminal),
        )
        self._list: TaskID | None = self._bars.add_task("", total=files) if files > 1 else None
        self._file = self._bars.add_task("", total=1.0)
        self._files, self._begun = files, 0

    def __enter__(self) -> "Bars":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def begin(self, path: Path) -> None:
        """The next file."""
        if self._list is not None:
            self._bars.update(self._list, completed=self._begun, description=f"{self._begun + 1} of {self._files}")
        self._begun += 1
        self._bars.reset(self._file, description=printable(path.name))

    def follow(self, event: Reached | list) -> None:
        """For `Analyst.analyze`."""
        if isinstance(event, Reached):
            self._bars.update(self._file, completed=event.share)


@cli.command()
def analyze(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH", exists=True, help="Videos, and folders to look for videos in.")
    ],
    window_s: WindowS = WINDOW_S,
    hop_s: HopS = HOP_S,
    max_faces: MaxFaces = MAX_FACES,
    device: Device = None,
    url: Url = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print each answer as a line of JSON.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print a row of CSV for each file.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", dir_okay=False,
            help="Add each answer to this file as a line of JSON. With the same file again, what is in it is not "
            "analysed again.",
        ),
    ] = None,
) -> None:  # fmt: skip
    """Judge videos, one after the other, and print a table.

    Exit status, by the worst of the files: 0 all real; 1 some fake; 3 some inconclusive, none fake; 4 some could not
    be analysed, none fake; 2 wrong usage; 130 interrupted.

    Of folders, files with a video's suffix are taken, at any depth; files that are named, whatever their suffix.
    """
    if as_json and as_csv:
        raise typer.BadParameter("--json and --csv exclude each other.")
    videos = find_videos(paths)
    if not videos:
        raise typer.BadParameter("there is no video in it; name files whose suffix is unusual.", param_hint="PATH")
    parameters: Parameters = {"window_s": window_s, "hop_s": hop_s, "max_faces": max_faces}
    known = _known(output)
    emit = _emitter(as_json, as_csv)
    found: list[Outcome] = []
    try:
        with ExitStack() as stack:
            open_analyst = _Lazy(stack, url, device)
            version = open_analyst().version if url else VERSION
            bars = stack.enter_context(Bars(len(videos), not (as_json or as_csv) or not sys.stdout.isatty()))
            for video in videos:
                bars.begin(video)
                earlier = known.get(str(video))
                if earlier is None or not still_holds(earlier, video, parameters, version):
                    outcome = _outcome(open_analyst(), video, parameters, bars.follow)
                    if output:
                        _append(output, outcome)
                else:
                    outcome = earlier
                found.append(outcome)
                emit(outcome)
    except KeyboardInterrupt:
        how = f"The same command goes on with --output {output}." if output else "With --output FILE it could go on."
        _say(f"Interrupted after {len(found)} of {len(videos)} files. {how}")
        _show_table(found, as_json or as_csv)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(EXIT_BROKEN_PIPE) from None
    _show_table(found, as_json or as_csv)
    raise typer.Exit(outcomes.exit_code(found))


class _Lazy:
    """Whoever analyses, made when it is first needed: where everything is known already, no detector is loaded."""

    def __init__(self, stack: ExitStack, url: str | None, device: str | None) -> None:
        self._stack, self._url, self._device = stack, url, device
        self._analyst: Analyst | None = None

    def __call__(self) -> Analyst:
        if self._analyst is None:
            self._analyst = self._stack.enter_context(analyst(self._url, self._device))
        return self._analyst


@contextmanager
def analyst(url: str | None, device: str | None) -> Iterator[Analyst]:
    """The service at ``url``, or the detector here, ready. Raises Stop when there is none."""
    if url:
        try:
            with RemoteDetector(url) as remote:
                yield remote
        except httpx.InvalidURL as error:
            raise Stop(f"{url}: {error}.") from error
        return
    from app.local import LocalDetector, quiet_libraries

    with quiet_libraries():
        try:
            local = LocalDetector(device)
        except (FileNotFoundError, RuntimeError, AssertionError) as error:  # the last from PyTorch without CUDA
            raise Stop(f"The detector can't be loaded: {str(error).splitlines()[0]}") from error
        with local:
            yield local


def _known(output: Path | None) -> dict[str, Outcome]:
    try:
        return read_outcomes(output) if output else {}
    except ValueError as error:
        raise typer.BadParameter(f"{error} Name another file.", param_hint="--output") from error


def _outcome(by: Analyst, video: Path, parameters: Parameters, follow: OnEvent) -> Outcome:
    try:
        facts = video.stat()
        answer: AnalysisResponse | Failure = by.analyze(video, follow, parameters)
        return Outcome(str(video), facts.st_size, facts.st_mtime, parameters, answer)
    except Exception as error:
        if (failure := failure_of(error)) is None:
            raise
        return Outcome(str(video), 0, 0.0, parameters, failure)


def _append(output: Path, outcome: Outcome) -> None:
    """Add a line; one that was left unfinished is ended first."""
    with output.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read() != b"\n":
                file.write(b"\n")
        file.write(f"{outcome.as_json()}\n".encode())


def _emitter(as_json: bool, as_csv: bool) -> Callable[[Outcome], None]:
    """Prints an outcome as soon as it is known, if it is not for the table."""
    if as_csv:
        print(outcomes.csv_row(outcomes.CSV_COLUMNS), flush=True)
        return lambda outcome: print(outcome.as_csv(), flush=True)
    if as_json:
        return lambda outcome: print(outcome.as_json(), flush=True)
    return lambda outcome: None


def _show_table(found: list[Outcome], printed: bool) -> None:
    if found and not printed:
        Console(width=None if sys.stdout.isatty() else WIDTH).print(outcomes.as_table(found))


def _say(sentence: str) -> None:
    print(f"lipsync: {sentence}", file=sys.stderr)


# --------------------------------------------------------------------------------------------------------------
# report
# --------------------------------------------------------------------------------------------------------------


@cli.command()
def report(
    file: Annotated[Path | None, typer.Argument(exists=True, dir_okay=False, help="The video.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A .html or .png file. Default: the video's name and .report.html, here."),
    ] = None,
    from_json: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", exists=True, dir_okay=False,
            help="Take an answer from here, as the service or `analyze --json` gave it, instead of analysing; of "
            "several, the one of the video that is named.",
        ),
    ] = None,
    window_s: WindowS = WINDOW_S,
    hop_s: HopS = HOP_S,
    max_faces: MaxFaces = MAX_FACES,
    device: Device = None,
    url: Url = None,
) -> None:  # fmt: skip
    """Write a report about one video: one HTML page that needs nothing else, or a PNG picture."""
    if file is None and from_json is None:
        raise typer.BadParameter("name a video, or an answer with --from-json.", param_hint="FILE")
    if out and out.suffix.lower() not in (".html", ".png"):
        raise typer.BadParameter(f"{out} must end in .html or .png.", param_hint="--out")
    if from_json:
        answer, name = _earlier(from_json, file)
    else:
        name = file.name
        parameters: Parameters = {"window_s": window_s, "hop_s": hop_s, "max_faces": max_faces, "playback": True}
        with analyst(url, device) as by, Bars(1, wanted=True) as bars:
            bars.begin(file)
            answer = by.analyze(file, bars.follow, parameters)
    from app.report import render_html, render_png

    target = out or Path(f"{name or from_json.name}.report.html")
    picture = target.suffix.lower() == ".png"
    target.write_bytes(render_png(answer, name) if picture else render_html(answer, name).encode())
    print(f"{printable(str(target))}: {answer.verdict}")


def _earlier(from_json: Path, file: Path | None) -> tuple[AnalysisResponse, str | None]:
    """An answer that was kept, and the name of its video if it is known."""
    try:
        text = from_json.read_text()
        kept = read_outcomes(from_json) if text.startswith(outcomes.BEGIN) else None
        if kept is None:
            return AnalysisResponse.model_validate_json(text), file.name if file else None
    except ValueError as error:
        raise Stop(f"{from_json}: this is not an answer.") from error
    chosen = [one for one in kept.values() if file is None or Path(one.path).resolve() == file.resolve()]
    if len(kept) > 1 and file is None:
        chosen = [one for one in chosen if isinstance(one.result, AnalysisResponse)]
    if len(chosen) != 1:
        raise Stop(f"{from_json} has {len(chosen)} answers{' of this video' if file else ''}; name the video of one.")
    if isinstance(chosen[0].result, Failure):
        raise Stop(f"{from_json}: the video could not be analysed: {chosen[0].result.detail}")
    return chosen[0].result, Path(chosen[0].path).name


# --------------------------------------------------------------------------------------------------------------
# The rest is done elsewhere
# --------------------------------------------------------------------------------------------------------------


@cli.command()
def serve(
    host: Annotated[str | None, typer.Option(envvar="HOST", help="Address to listen on. Default: 127.0.0.1.")] = None,
    port: Annotated[
        int | None, typer.Option(envvar="PORT", help="TCP port; 0 takes a free one. Default: 8000.")
    ] = None,
) -> None:
    """Run the service until it is interrupted. All its settings are environment variables, see the README."""
    os.environ.update({name: str(value) for name, value in (("HOST", host), ("PORT", port)) if value is not None})
    from app.__main__ import main as run

    run()


@cli.command()
def key(
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    rate: Annotated[str | None, typer.Option(help="How often it may bring a video, as 60/minute.")] = None,
) -> None:
    """Make an API key. It is shown once; the line below it is for the file of keys, LIPSYNC_KEYS_FILE."""
    from app.keys import new_key

    try:
        made, line = new_key(name, rate)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    print(made)
    print(line)


@cli.command()
def sample(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="File to write: .mp4, .mov, .mkv, .webm or .avi.")],
    offset_ms: Annotated[int, typer.Option(help="How late the sound is, in ms; negative: early.")] = 0,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long the video is.")] = 6.0,
    seed: Annotated[int, typer.Option(help="Which babble: same seed, same video.")] = 0,
) -> None:
    """Write a made video of a talking face, to try things with."""
    from app.local import quiet_libraries
    from model.sample import main as run

    try:
        with quiet_libraries():
            run(["--out", str(out), f"--offset-ms={offset_ms}", f"--seconds={seconds}", f"--seed={seed}"])
    except ValueError as error:
        raise Stop(f"{error}.") from error
    except OSError as error:
        raise Stop(f"{out} can't be written: {error.strerror}.") from error


@cli.command()
def train(
    data: Data,
    cache: Cache = Path("build/cache"),
    run: Annotated[Path, typer.Option(help="Where checkpoints are kept.")] = Path("build/run"),
    minutes: Annotated[float, typer.Option(min=0.1, help="Training time of the sync detector.")] = 90.0,
) -> None:
    """Train all detectors and fit the verdict; run again to resume."""
    from model.training import recipe

    _run(lambda: recipe.train(data, cache, run, minutes))


@cli.command()
def evaluate(data: Data, cache: Cache = Path("build/cache")) -> None:
    """Measure the weights, and refresh the model card."""
    from model.training import recipe

    _run(lambda: recipe.evaluate(data, cache))


@cli.command()
def bench(long: Annotated[bool, typer.Option("--long", help="Also 10 minutes of 1080p.")] = False) -> None:
    """Measure what an analysis costs and what the service sustains. Needs the source tree."""
    if not (ROOT / "scripts" / "benchmark.py").exists():
        raise Stop("bench is part of the source tree, not of the installed package: run it in a checkout.")
    if find_spec("litserve") is None:
        raise Stop("What it compares with is not installed. `make bench` installs it.")
    command = [sys.executable, "-m", "scripts.benchmark", *(["--long"] if long else [])]
    _run(lambda: subprocess.run(command, cwd=ROOT, check=True))


def _run(step: Callable[[], object]) -> None:
    try:
        step()
    except subprocess.CalledProcessError as error:
        raise Stop(f"{' '.join(error.cmd[1:3])} failed with exit status {error.returncode}.") from error


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"lipsync {VERSION}")
        raise typer.Exit


@cli.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options of every command."""


if __name__ == "__main__":
    main()
