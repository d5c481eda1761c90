"""How much of "real or fake" can be told without looking at a face: from the container, or from the sound alone.

A detector that is no better than such a probe may have learnt the data set and not the fakes. Probes are logistic
regressions, trained on other identities than they are tested on.
"""

import multiprocessing
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import av
import numpy as np
import torch
from scipy.optimize import minimize

from model.audio import HOP, N_MELS, SpeechFeatures
from model.media import SAMPLE_RATE, MediaFile, load_audio
from model.training.clips import Clip, Split
from model.training.reencode import ALIKE, reencode
from model.training.report import Report
from model.training.statistics import Figure, auc_over_identities, even_odds
from model.training.trials import few_of_each

SECONDS = 2.0
CLIPS_PER_IDENTITY = 3
PENALTY = 1e-2
MEL_GROUP = 8
QUIET_DB = -40.0


@dataclass(frozen=True, slots=True)
class Known:
    """One clip without its face: facts of its container and of its sound, (9,) and (22,)."""

    clip: Clip
    container: np.ndarray
    sound: np.ndarray


def container_facts(path: Path) -> np.ndarray:
    """(9,): logs of width, height, aspect, bit rate and sample rate, fps, seconds, and whether H.264 and AAC."""
    info = MediaFile(path).info
    with av.open(str(path)) as container:
        seconds, bit_rate = (container.duration or 0) / av.time_base, container.bit_rate
    width, height = np.log(info.width), np.log(info.height)
    return np.array([
        width, height, abs(width - height), np.log1p(bit_rate or 0), np.log1p(info.sample_rate or 0), info.fps, seconds,
        info.video_codec == "h264", info.audio_codec == "aac",
    ])  # fmt: skip


def sound_facts(sound: np.ndarray) -> np.ndarray:
    """(22,) of (n,) at 16 kHz: mean and spread of 10 bands of log-mel, leading silence in s, bandwidth in kHz."""
    whole = np.pad(sound, (0, -len(sound) % HOP + HOP)).astype(np.float32)
    log_mel = SpeechFeatures()(torch.from_numpy(whole)[None])[0][0].numpy()
    bands = log_mel.reshape(N_MELS // MEL_GROUP, MEL_GROUP, -1).mean(1)
    level = np.sqrt(np.mean(whole.reshape(-1, HOP) ** 2, axis=1))
    loud = level > max(level.max(), 1e-6) * 10 ** (QUIET_DB / 20)
    silence_s = (loud.argmax() if loud.any() else len(loud)) * HOP / SAMPLE_RATE
    power = np.abs(np.fft.rfft(whole)) ** 2
    bandwidth_khz = np.searchsorted(power.cumsum(), 0.99 * power.sum()) / len(power) * SAMPLE_RATE / 2000
    return np.array([*bands.mean(1), *bands.std(1), silence_s, bandwidth_khz])


def know(folder: Path, clip: Clip) -> tuple[Known, Known] | None:
    """A clip as it is and as it is when all are written alike; None when it is shorter than `SECONDS`."""
    source = folder / clip.path
    sound = load_audio(MediaFile(source))[: round(SECONDS * SAMPLE_RATE)]
    if len(sound) < SECONDS * SAMPLE_RATE:
        return None
    with tempfile.TemporaryDirectory() as scratch:
        alike = Path(scratch) / "alike.mp4"
        reencode(source, alike, ALIKE, SECONDS)
        heard = load_audio(MediaFile(alike))
        return (
            Known(clip, container_facts(source), sound_facts(sound)),
            Known(clip, container_facts(alike), sound_facts(heard)),
        )


def probe(train: Sequence[tuple[Clip, np.ndarray]], test: Sequence[tuple[Clip, np.ndarray]]) -> Figure:
    """AUC of a logistic regression on the facts of each clip, on the clips of other identities."""
    facts = np.array([values for _, values in train])
    centre, spread = facts.mean(0), facts.std(0) + 1e-6
    order, truth, weight = even_odds(*_sides([(clip, row) for row, (clip, _) in enumerate(train)]))
    slope = _logistic(((facts - centre) / spread)[order.astype(int)], truth, weight)
    return auc_over_identities(*_sides([(clip, float((values - centre) / spread @ slope)) for clip, values in test]))


def probes(report: Report, folder: Path, split: dict[Split, list[Clip]], workers: int = 2) -> None:
    """Both probes on the files as they are and written alike; trained on train and val, tested on test identities."""
    section = "What can be told without looking at a face: AUC of probes"
    report.note(
        section,
        "The trap: what is well above 0.5 for files as they are gives the label away without a face, by size, rates or "
        "sound, and flatters any detector that gets to see it. Ours gets neither container nor size, only faces cut "
        f"out at one scale and sound at 16 kHz. *Written alike*: the first {SECONDS:g} s in 256 x 256 pixels, 25 fps, "
        f"H.264 at CRF {ALIKE.crf}, AAC at {ALIKE.audio_kbps} kb/s and 16 kHz; all that then differs between "
        "containers is the bit rate.",
    )
    sides = {"train": split["train"] + split["val"], "test": split["test"]}
    known: dict[str, list[tuple[Known, Known]]] = {}
    with multiprocessing.get_context("spawn").Pool(workers, torch.set_num_threads, (1,)) as pool:
        for side, clips in sides.items():
            few = few_of_each(clips, CLIPS_PER_IDENTITY)
            known[side] = [both for both in pool.imap(partial(know, folder), few) if both is not None]
    for column, which in (("files as they are", 0), ("written alike", 1)):
        for row, facts in (("container alone", "container"), ("sound alone", "sound")):
            members = {
                side: [(both[which].clip, getattr(both[which], facts)) for both in found]
                for side, found in known.items()
            }
            report.add(section, row, column, probe(members["train"], members["test"]))


def _logistic(facts: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Slopes (F,) of a logistic regression on (N, F) facts of about unit spread."""

    def loss(p: np.ndarray) -> float:
        z = facts @ p[:-1] + p[-1]
        return float(weight @ (np.logaddexp(0, z) - truth * z) + PENALTY * (p[:-1] ** 2).sum())

    return minimize(loss, np.zeros(facts.shape[1] + 1), method="L-BFGS-B").x[:-1]


def _sides(values: Iterable[tuple[Clip, float]]) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """By identity, those of generated and those of real clips."""
    sides: dict[bool, dict[str, list[float]]] = {True: defaultdict(list), False: defaultdict(list)}
    for clip, value in values:
        sides[clip.fake][clip.identity].append(value)
    return sides[True], sides[False]
