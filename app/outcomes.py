"""A list of videos in; what came of each out: as a line of JSON, a row of CSV, a row of a table, an exit code."""

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel
from rich.table import Table
from rich.text import Text

from app.client import Parameters
from app.schemas import AnalysisResponse

SUFFIXES = frozenset(
    [
        ".3gp",
        ".asf",
        ".avi",
        ".flv",
        ".m2ts",
        ".m4v",
        ".mkv",
        ".mov",
        ".mp4",
        ".mpeg",
        ".mpg",
        ".mts",
        ".mxf",
        ".ogv",
        ".ts",
        ".vob",
        ".webm",
        ".wmv",
    ]
)
"""Of what is taken for a video in a folder."""

EXIT_REAL, EXIT_FAKE, EXIT_INCONCLUSIVE, EXIT_FAILED = 0, 1, 3, 4
BEGIN = '{"path": '
"""Of a line of JSON."""

COLOURS = {"real": "green", "fake": "red", "inconclusive": "yellow", "error": "magenta"}
CSV_COLUMNS = (
    "path", "verdict", "fake_probability", "offset_ms", "offset_confidence", "duration_s", "faces", "reasons",
    "sha256", "model", "error", "detail",
)  # fmt: skip


class Failure(BaseModel):
    """Why there is no answer: a stable ``code`` and a sentence for people."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one file. ``modified_s``: when it was last changed, in seconds since 1970."""

    path: str
    size_bytes: int
    modified_s: float
    parameters: Mapping[str, object]
    result: AnalysisResponse | Failure

    @property
    def verdict(self) -> str:
        """The verdict, or ``error``."""
        return self.result.verdict if isinstance(self.result, AnalysisResponse) else "error"

    def as_json(self) -> str:
        """One line: the answer's fields after those of the file, or ``error``."""
        known = {
            "path": self.path, "size_bytes": self.size_bytes, "modified_s": self.modified_s,
            "parameters": dict(self.parameters),
        }  # fmt: skip
        if isinstance(self.result, Failure):
            return json.dumps(known | {"error": self.result.model_dump()})
        absent = {"playback"} if self.result.playback is None else None
        return json.dumps(known | self.result.model_dump(mode="json", exclude=absent))

    @classmethod
    def from_json(cls, line: str) -> "Outcome":
        """Raises ValueError if it is none."""
        fields = json.loads(line)
        try:
            failed = "error" in fields
            result = Failure.model_validate(fields["error"]) if failed else AnalysisResponse.model_validate(fields)
            return cls(fields["path"], fields["size_bytes"], fields["modified_s"], fields["parameters"], result)
        except (KeyError, TypeError) as error:
            raise ValueError("not the outcome of an analysis") from error

    def as_csv(self) -> str:
        """One row, in the order of `CSV_COLUMNS`."""
        if isinstance(self.result, Failure):
            return csv_row([self.path, "error", *[""] * 8, self.result.code, self.result.detail])
        answer = self.result
        codes = " ".join(reason.code for reason in answer.reasons)
        return csv_row(
            [
                self.path,
                answer.verdict,
                answer.fake_probability,
                answer.sync.offset_ms,
                answer.sync.confidence,
                answer.media.duration_s,
                len(answer.tracks),
                codes,
                answer.media.sha256,
                f"{answer.model.name} {answer.model.version}",
                "",
                "",
            ]  # fmt: skip
        )


def csv_row(values: Iterable[object]) -> str:
    """Values, quoted where need be; None is empty."""
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow(values)
    return out.getvalue()


def find_videos(paths: Iterable[Path]) -> list[Path]:
    """Files as they are, folders as the videos in them by suffix, at any depth, sorted; nothing twice, or hidden."""
    found: dict[Path, Path] = {}
    for path in paths:
        for video in _videos_in(path) if path.is_dir() else [path]:
            found.setdefault(video.resolve(), video)
    return list(found.values())


def _videos_in(folder: Path) -> Iterator[Path]:
    for inside, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                yield Path(inside, name)


def read_outcomes(file: Path) -> dict[str, Outcome]:
    """Of every file its last outcome, by path. An unfinished line, as a crash leaves it, is passed over.

    Raises ValueError when the file holds something else.
    """
    found: dict[str, Outcome] = {}
    for number, line in enumerate(file.read_text().splitlines() if file.exists() else [], 1):
        try:
            outcome = Outcome.from_json(line)
        except ValueError as error:
            if not line.startswith(BEGIN):
                raise ValueError(f"{file}, line {number}: this is not the outcome of an analysis.") from error
        else:
            found[outcome.path] = outcome
    return found


def still_holds(outcome: Outcome, path: Path, parameters: Parameters, version: str) -> bool:
    """Whether ``path`` need not be analysed again: it is the file that was, and the question is the same."""
    answer = outcome.result
    if isinstance(answer, Failure) or answer.model.version != version or dict(outcome.parameters) != parameters:
        return False
    facts = path.stat()
    if facts.st_size != outcome.size_bytes:
        return False
    if facts.st_mtime == outcome.modified_s:
        return True
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == answer.media.sha256


def exit_code(outcomes: Iterable[Outcome]) -> int:
    """Of the worst: fake, then what could not be analysed, then inconclusive, then real."""
    verdicts = {outcome.verdict for outcome in outcomes}
    ranked = (("fake", EXIT_FAKE), ("error", EXIT_FAILED), ("inconclusive", EXIT_INCONCLUSIVE))
    return next((code for verdict, code in ranked if verdict in verdicts), EXIT_REAL)


def as_table(outcomes: Sequence[Outcome]) -> Table:
    """For people: a row a file, and what speaks for the verdict."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("file", overflow="fold", ratio=2)
    table.add_column("verdict", no_wrap=True)
    table.add_column("fake prob.", justify="right", no_wrap=True)
    table.add_column("offset", justify="right", no_wrap=True)
    table.add_column("length", justify="right", no_wrap=True)
    table.add_column("why", overflow="fold", ratio=5)
    for outcome in outcomes:
        verdict = Text(outcome.verdict, style=f"bold {COLOURS[outcome.verdict]}")
        name = Text(printable(outcome.path))
        if isinstance(outcome.result, Failure):
            table.add_row(name, verdict, "", "", "", Text(printable(outcome.result.detail)))
            continue
        answer = outcome.result
        probability = "-" if answer.fake_probability is None else f"{answer.fake_probability:.2f}"
        offset = "-" if answer.sync.offset_ms is None else f"{answer.sync.offset_ms} ms"
        why = [reason.detail for reason in (answer.reasons if len(outcomes) == 1 else answer.reasons[:1])]
        length = f"{answer.media.duration_s:.1f} s"
        table.add_row(name, verdict, probability, offset, length, Text(printable("\n".join(why + answer.warnings))))
    return table


def printable(text: str) -> str:
    """Without what would steer a terminal."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "\N{REPLACEMENT CHARACTER}" for letter in text)
