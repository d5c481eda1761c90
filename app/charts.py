"""An analysis, drawn: the probability between its thresholds, and the evidence over time.

With matplotlib's objects alone, never pyplot, so that several threads may draw at once. Everything is on white.
"""

from base64 import b64decode
from collections.abc import Callable, Sequence
from io import BytesIO
from textwrap import wrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ticker import FuncFormatter
from PIL import Image

from app.schemas import AnalysisResponse, KeyFrame, Track, Window

FAKE, SYNC, REAL, INK, MUTED = "#b8320a", "#0b62a4", "#2c7d4f", "#1d2329", "#6a737d"
VERDICT_COLOURS = {"real": REAL, "fake": FAKE, "inconclusive": "#9a6a00"}

MOST_POINTS = 500
"""Of a line; of more, the worst in each stretch are drawn."""

MOST_MARKED = 150
"""Of a line with more points than this, they are not marked each."""

MOST_LANES = 6

WIDTH_IN = 10.0
GAUGE_IN, LANE_IN, SOUND_IN, OFFSETS_IN, AXIS_IN, KEY_FRAMES_IN, LINE_IN = 1.45, 1.45, 0.7, 1.2, 0.9, 2.6, 0.215
MARGIN_IN = 0.12
DOTS_PER_INCH = 120

Canvas = Figure | SubFigure


def lanes(answer: AnalysisResponse) -> list[Track]:
    """The faces worth showing, in order: those that speak longest, and the most suspicious one in any case."""
    known = [track for track in answer.tracks if track.fake_probability is not None]
    by_speech = sorted(known or answer.tracks, key=lambda one: -one.speaking_share * (one.end_s - one.start_s))
    shown = by_speech[:MOST_LANES]
    if known:
        worst = max(known, key=lambda one: one.fake_probability or 0.0)
        if worst not in shown:
            shown[-1] = worst
    return sorted(shown, key=lambda one: one.track_id)


def draw_gauge(axes: Axes, answer: AnalysisResponse) -> None:
    """Where the probability lies between 0 and 1, and where the thresholds are."""
    low, high = _thresholds(answer)
    for begin, end, verdict in ((0.0, low, "real"), (low, high, "inconclusive"), (high, 1.0, "fake")):
        colour = VERDICT_COLOURS[verdict]
        axes.barh(0.5, end - begin, 1, begin, color=colour, alpha=0.22, linewidth=0)
        if end - begin > 0.05:
            axes.text((begin + end) / 2, 0.5, verdict, ha="center", va="center", color=colour, fontsize=9)
    axes.vlines([low, high], 0, 1, color=INK, linewidth=1, linestyle=":")
    if answer.fake_probability is not None:
        place = answer.fake_probability
        axes.vlines(place, 0, 1, color=INK, linewidth=3)
        axes.plot([place], [1.2], marker="v", color=INK, markersize=9, clip_on=False)
        side = "left" if place < 0.08 else "right" if place > 0.92 else "center"
        axes.text(place, 1.45, f"{place:.2f}", ha=side, va="bottom", fontsize=12, fontweight="bold", color=INK)
    axes.set(xlim=(0, 1), ylim=(0, 2.2), yticks=[], xticks=[0, low, high, 1])
    axes.set_xticklabels(["0", f"{low:.2f}", f"{high:.2f}", "1"])
    axes.set_xlabel("fake probability", color=MUTED, fontsize=9)
    _plain(axes)
    axes.spines["left"].set_visible(False)


def timeline_height_in(answer: AnalysisResponse) -> float:
    """How high `draw_timeline` needs its canvas to be, in inches."""
    return SOUND_IN + LANE_IN * len(lanes(answer)) + OFFSETS_IN + AXIS_IN


def draw_timeline(canvas: Canvas, answer: AnalysisResponse) -> None:
    """The sound; a lane for each face with its fake probability and sync score; the offset of every window."""
    shown = lanes(answer)
    heights = [SOUND_IN, *[LANE_IN] * len(shown), OFFSETS_IN]
    rows = canvas.subplots(len(heights), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    sound, *faces, offsets = rows
    _draw_sound(sound, answer)
    for axes, track in zip(faces, shown):
        _draw_face(axes, answer, track)
    if faces:
        faces[0].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, fontsize=8, frameon=False, borderpad=0)
    _draw_offsets(offsets, answer, shown)
    offsets.set_xlim(0, max(answer.media.duration_s, 0.1))
    offsets.xaxis.set_major_formatter(FuncFormatter(_clock if answer.media.duration_s >= 120 else _seconds))
    unit = "minutes and seconds" if answer.media.duration_s >= 120 else "seconds"
    offsets.set_xlabel(f"time, {unit}", color=MUTED, fontsize=9)
    canvas.align_ylabels(list(rows))


def draw_key_frames(canvas: Canvas, key_frames: Sequence[KeyFrame]) -> None:
    """The pictures in a row, under each its mouth."""
    grid = canvas.subplots(2, len(key_frames), squeeze=False, gridspec_kw={"height_ratios": [1.6, 1]})
    for (picture, mouth), key_frame in zip(grid.T, key_frames):
        for axes, encoded in ((picture, key_frame.picture), (mouth, key_frame.mouth)):
            axes.imshow(np.asarray(Image.open(BytesIO(b64decode(encoded))).convert("RGB")))
            axes.set_axis_off()
        picture.set_title(f"{key_frame.time_s:.1f} s: {key_frame.fake_probability:.2f}", fontsize=9, color=INK)


def draw_text(canvas: Canvas, lines: Sequence[tuple[str, float, str]]) -> None:
    """Lines of text from the top down, each with its size in points and its colour."""
    height = canvas.bbox.height / canvas.figure.dpi  # type: ignore[union-attr]
    below_in = MARGIN_IN
    for text, size, colour in lines:
        weight = "bold" if size > 10 else "normal"
        canvas.text(
            MARGIN_IN / WIDTH_IN, 1 - below_in / height, _drawable(text), fontsize=size, color=colour, va="top",
            fontweight=weight, parse_math=False,
        )  # fmt: skip
        below_in += line_height_in(size)


def line_height_in(size: float) -> float:
    """Of a line of text whose size is in points, in inches."""
    return LINE_IN * size / 10


def wrapped(text: str, size: float, colour: str = INK) -> list[tuple[str, float, str]]:
    """Lines for `draw_text`."""
    return [(line, size, colour) for line in wrap(text, int(WIDTH_IN * 128 / size))]


def text_height_in(lines: Sequence[tuple[str, float, str]]) -> float:
    """How high `draw_text` needs its canvas to be, in inches."""
    return sum(line_height_in(size) for _, size, _ in lines) + MARGIN_IN


def figure(height_in: float, width_in: float = WIDTH_IN) -> Figure:
    """An empty page."""
    drawing = Figure(figsize=(width_in, height_in), dpi=DOTS_PER_INCH, facecolor="white", layout="constrained")
    drawing.get_layout_engine().set(w_pad=MARGIN_IN, h_pad=MARGIN_IN / 2)
    return drawing


def saved(drawing: Figure, kind: str) -> bytes:
    """The file, ``svg`` or ``png``."""
    out = BytesIO()
    drawing.savefig(out, format=kind, metadata={"Date": None} if kind == "svg" else {})
    return out.getvalue()


def _drawable(text: str) -> str:
    """With a sign in place of what the font does not have."""
    font = get_font(findfont(FontProperties()))
    return "".join(letter if font.get_char_index(ord(letter)) else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _draw_sound(axes: Axes, answer: AnalysisResponse) -> None:
    playback = answer.playback
    if playback is not None and playback.waveform:
        loud = _worst(np.array(playback.waveform), np.max)
        times = (np.arange(len(loud)) + 0.5) * answer.media.duration_s / len(loud)
        axes.fill_between(times, -loud, loud, color="#8a949e", linewidth=0)
        axes.set_ylim(-1.05 * max(loud.max(), 0.05), 1.05 * max(loud.max(), 0.05))
    for begin, end in playback.speech if playback is not None else _speech(answer.windows):
        axes.axvspan(begin, end, color="#e3c567", alpha=0.45, linewidth=0)
    axes.set_yticks([])
    axes.set_ylabel("sound", color=INK, fontsize=9)
    axes.text(0, 1.04, "speech", transform=axes.transAxes, fontsize=8, color=INK, va="bottom",
              bbox={"facecolor": "#e3c567", "alpha": 0.45, "edgecolor": "none", "pad": 1.5})  # fmt: skip
    _plain(axes)


def _draw_face(axes: Axes, answer: AnalysisResponse, track: Track) -> None:
    low, high = _thresholds(answer)
    windows = [window for window in answer.windows if window.track_id == track.track_id]
    middles = _middles(windows)
    axes.axhspan(high, 1, color=FAKE, alpha=0.10, linewidth=0)
    for threshold in (low, high):
        axes.axhline(threshold, color=MUTED, linewidth=0.8, linestyle=":")
    for values, colour, width, label, worst in (
        ([one.sync_score for one in windows], SYNC, 1.1, "sync score", np.nanmin),
        ([one.fake_probability for one in windows], FAKE, 1.7, "fake probability", np.nanmax),
    ):
        marker = "." if len(windows) <= MOST_MARKED else ""
        times, heights = _worst(middles, np.nanmean), _worst(np.array(values, float), worst)
        axes.plot(times, heights, color=colour, linewidth=width, label=label, marker=marker, markersize=3)
    ticks = [0.0, low, high] if high > 0.85 else [0.0, low, high, 1.0]
    axes.set_ylim(-0.03, 1.03)
    axes.set_yticks(ticks, [f"{tick:.2g}" for tick in ticks], fontsize=8)
    axes.set_ylabel(f"face {track.track_id + 1}", color=INK, fontsize=9)
    _plain(axes)


def _draw_offsets(axes: Axes, answer: AnalysisResponse, shown: Sequence[Track]) -> None:
    if answer.sync.offset_ms is not None:
        axes.axhline(answer.sync.offset_ms, color=MUTED, linewidth=0.8, linestyle="--")
    for track, marker in zip(shown, "osD^vP"):
        known = [one for one in answer.windows if one.track_id == track.track_id and one.offset_ms is not None]
        thinned = known[:: 1 + len(known) // MOST_POINTS]
        axes.plot(
            _middles(thinned), [one.offset_ms for one in thinned], linestyle="none", marker=marker, markersize=3,
            color=SYNC, alpha=0.6, label=f"face {track.track_id + 1}",
        )  # fmt: skip
    axes.set_ylim(-660, 660)
    axes.set_yticks([-600, -300, 0, 300, 600], ["-600", "-300", "0", "300", "600"], fontsize=8)
    axes.set_ylabel("offset, ms", color=INK, fontsize=9)
    if len(shown) > 1:
        axes.legend(loc="lower right", bbox_to_anchor=(1, 0.98), ncols=6, fontsize=7, frameon=False, borderpad=0)
    _plain(axes)


def _worst(values: np.ndarray, worst: Callable[..., np.ndarray]) -> np.ndarray:
    """At most `MOST_POINTS` of them: the ``worst`` of each stretch, NaN where there is none."""
    if len(values) <= MOST_POINTS:
        return values
    stretches = np.array_split(values, MOST_POINTS)
    return np.array([worst(some) if not np.isnan(some).all() else np.nan for some in stretches])


def _middles(windows: Sequence[Window]) -> np.ndarray:
    return np.array([(window.start_s + window.end_s) / 2 for window in windows])


def _speech(windows: Sequence[Window]) -> list[tuple[float, float]]:
    """From and to, in seconds, by the middles of the windows in which somebody speaks."""
    spans: list[tuple[float, float]] = []
    speaking = sorted({(window.start_s, window.end_s) for window in windows if window.speech})
    for begin, end in speaking:
        if spans and begin <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
        else:
            spans.append((begin, end))
    return spans


def _thresholds(answer: AnalysisResponse) -> tuple[float, float]:
    thresholds = answer.model.thresholds
    return thresholds["real_below"], thresholds["fake_above"]


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#b7bec5")
    axes.tick_params(colors=MUTED, labelsize=8)


def _seconds(value: float, _: object) -> str:
    return f"{value:g}"


def _clock(value: float, _: object) -> str:
    minutes, seconds = divmod(round(value), 60)
    return f"{minutes}:{seconds:02d}"
