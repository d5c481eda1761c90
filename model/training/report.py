"""Figures in; tables as Markdown and JSON, and a refreshed model card, out, so that nobody types a figure by hand."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from model.training.statistics import Figure

CARD_BEGIN, CARD_END = "<!-- figures: begin -->", "<!-- figures: end -->"

PEERS = (
    ("Sync: IC-SyncNet, LRS2 / LRS3, 5 frames (hundreds of hours of training)", "96.5 % / 93.8 %"),
    ("Sync: ModEFormer, UniSync, LRS2", "94.5 %, 94.3 %"),
    ("Sync: StableSyncNet (LatentSync), HDTF", "91 to 94 %"),
    ("Sync: LR-ASD swept over offsets, GRID s1, 75 frames, relative to its own bias", "87.5 %"),
    ("Sync: lip opening x loudness, GRID s1, 75 frames", "62.5 %"),
    ("Sync: LR-ASD, 200 ms shift told from none, GRID s1, balanced accuracy", "95 %"),
    ("Sync: LR-ASD, other audio of the same speaker, GRID s1, AUC", "0.60"),
    ("Sync: lip opening x loudness, other audio of the same speaker, GRID s1, AUC", "0.74"),
    ("Fakes: SpeechForensics (trained on real video only), AUC, FF++ / FakeAVCeleb / KoDF", "0.976 / 0.990 / 0.917"),
    ("Fakes: SpeechForensics, measured by others, AUC, KoDF / an unseen generator", "0.83 / 0.61"),
    ("Fakes: AVH-Align (trained on real video only), AUC, AV-Deepfake1M", "0.852"),
    ("Fakes: LipFD, accuracy, AVLips (a user found nearly all of his real videos flagged)", "95.3 %"),
    ("Fakes: LipDA, AUC, AVLips; accuracy, unseen generators", "0.998; 84.6 to 95.5 %"),
    ("Fakes: BioLip (lip landmarks only), AUC, AVLips / FakeAVCeleb / Mandarin", "0.905 / 0.969 / 0.779"),
    ("Fakes: LipForensics on other data sets, AUC, CelebDF-v2 / DFDC", "0.824 / 0.735"),
    ("Fakes: open video detectors in the wild (Deepfake-Eval-2024)", "lose half of their AUC"),
)


@dataclass(frozen=True, slots=True)
class Target:
    """A figure that has a goal. ``at_most``: the goal is a ceiling, not a floor."""

    name: str
    figure: Figure
    goal: float
    at_most: bool

    @property
    def met(self) -> bool:
        """Whether the figure itself, whatever its interval, is on the right side of the goal."""
        return self.figure.value <= self.goal if self.at_most else self.figure.value >= self.goal


@dataclass(slots=True)
class Report:
    """Figures with goals, pictures, and rows of figures under headings, in the order in which they come."""

    targets: list[Target] = field(default_factory=list)
    pictures: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    sections: dict[str, dict[str, dict[str, Figure]]] = field(default_factory=dict)

    def target(self, name: str, figure: Figure, goal: float, at_most: bool = False) -> None:
        """Note and print a figure that has a goal; one without data is only printed."""
        target = Target(name, figure, goal, at_most)
        print(f"Target | {name}: {_text(figure)}, goal {_goal(target)}", flush=True)
        if figure.identities:
            self.targets.append(target)

    def add(self, section: str, row: str, column: str, figure: Figure) -> None:
        """Note and print one figure; one without data is only printed."""
        print(f"{section} | {row} | {column}: {_text(figure)}", flush=True)
        if figure.identities:
            self.sections.setdefault(section, {}).setdefault(row, {})[column] = figure

    def note(self, section: str, text: str) -> None:
        """What a reader of the section has to know."""
        self.notes[section] = text

    def picture(self, title: str, path: str) -> None:
        """A plot; ``path`` is relative to where the tables will be."""
        self.pictures[title] = path

    def merge(self, other: "Report") -> None:
        """Add everything of another report at the end."""
        self.targets += other.targets
        self.pictures |= other.pictures
        self.notes |= other.notes
        self.sections |= other.sections

    def save(self, path: Path) -> None:
        """Write all figures as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    def as_markdown(self) -> str:
        """All figures as tables."""
        parts = [
            *_table("Targets", ("figure", "value", "target", "met"), [
                (t.name, _text(t.figure), _goal(t), "yes" if t.met else "no") for t in self.targets
            ]),
            *(f"![{title}]({path})\n" for title, path in self.pictures.items()),
        ]  # fmt: skip
        for section, rows in self.sections.items():
            columns = list(dict.fromkeys(column for row in rows.values() for column in row))
            cells = [
                (row, *(_text(figures[column]) if column in figures else "" for column in columns))
                for row, figures in rows.items()
            ]
            parts += _table(section, ("", *columns), cells, self.notes.get(section))
        parts += _table("Peers, as published or measured on other material", ("", ""), PEERS)
        return "\n".join(parts)


def load_report(path: Path) -> Report:
    """What `Report.save` wrote. Raises FileNotFoundError."""
    facts = json.loads(path.read_text())
    return Report(
        targets=[Target(**(target | {"figure": Figure(**target["figure"])})) for target in facts["targets"]],
        pictures=facts["pictures"],
        notes=facts["notes"],
        sections={
            section: {
                row: {name: Figure(**figure) for name, figure in figures.items()} for row, figures in rows.items()
            }
            for section, rows in facts["sections"].items()
        },
    )


def refresh_card(card: Path, figures: str) -> None:
    """Replace the figures in the model card by new ones."""
    before, _, rest = card.read_text().partition(CARD_BEGIN)
    _, _, after = rest.partition(CARD_END)
    card.write_text(f"{before}{CARD_BEGIN}\n\n{figures}\n{CARD_END}{after}")


def _table(heading: str, columns: Sequence[str], rows: Sequence[Sequence[str]], note: str | None = None) -> list[str]:
    body = ["| " + " | ".join(cells) + " |" for cells in (columns, *rows)]
    return [f"### {heading}", "", *([note, ""] if note else []), body[0], "|---" * len(columns) + "|", *body[1:], ""]


def _text(figure: Figure) -> str:
    if not figure.identities:
        return "no data"
    return f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f}, n={figure.identities})"


def _goal(target: Target) -> str:
    return f"{'<=' if target.at_most else '>='} {target.goal:g}"
