"""Fakes in part: two seconds of a mouth painted anew where it is, and nothing else."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from model import analyze, load_detector
from model.detector import LipSyncDetector
from model.media import SAMPLES_PER_FRAME, MediaFile, load_audio
from model.sample import make_sample
from model.training.autoencoder import MouthAutoencoder
from model.training.clips import Clip
from model.training.generator import MouthGenerator
from model.training.in_part import (
    APART,
    AUTOENCODER,
    CODED,
    GENERATED,
    KINDS,
    SAID,
    UNTOUCHED,
    WRITTEN,
    Painters,
    kinds_of,
    with_words_of,
    write_in_part,
)  # fmt: skip
from model.training.reencode import timed_pictures, write
from model.training.trials import PARTIAL


@pytest.fixture(scope="module")
def painters() -> Painters:
    """Untrained: what they paint is nothing like a mouth."""
    torch.manual_seed(0)
    return Painters(MouthGenerator().eval(), MouthAutoencoder(AUTOENCODER).eval(), LipSyncDetector().eval())


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, painters: Painters) -> dict[str, Path]:
    """Seven seconds of a made face, in all kinds."""
    folder = tmp_path_factory.mktemp("in_part")
    make_sample(folder / "talk.mp4", seconds=7.0)
    return write_in_part(folder / "talk.mp4", folder, painters)


@pytest.mark.parametrize("kind", [GENERATED, CODED])
def test_two_seconds_of_the_mouth_are_painted_anew_and_nothing_before_them(written, kind):
    before, after = (np.stack([f.rgb for f in MediaFile(written[k]).frames()]).astype(int) for k in (UNTOUCHED, kind))
    differs = np.abs(after - before).mean((1, 2, 3))
    begin = (len(before) - PARTIAL) // 2
    assert not differs[: begin - 20].any(), "up to what the encoder looks ahead, both are coded from the same pictures"
    changed = np.flatnonzero(differs > 0.65 * differs.max())
    assert abs(changed[0] - begin) <= 2 and abs(changed[-1] + 1 - changed[0] - PARTIAL) <= 2
    at = np.abs(after - before)[begin + PARTIAL // 2].sum(2) > 30
    assert 0.005 < at.mean() < 0.25, "the mouth, and not the rest of the picture"


def test_what_is_said_there_is_what_is_said_elsewhere(written):
    said = {kind: load_audio(MediaFile(written[kind])) for kind in KINDS}
    assert np.array_equal(said[GENERATED], said[CODED]) and np.array_equal(said[GENERATED], said[SAID])
    differs = np.abs(said[GENERATED] - said[UNTOUCHED]).reshape(-1, SAMPLES_PER_FRAME).max(1) > 0.01
    changed = np.flatnonzero(differs)
    assert PARTIAL / 2 < len(changed) <= PARTIAL + 6 and changed[-1] - changed[0] <= PARTIAL + 6


def test_words_alone_are_put_over_the_mouth_as_it_was(written):
    before, after = (np.stack([f.rgb for f in MediaFile(written[k]).frames()]) for k in (UNTOUCHED, SAID))
    assert np.array_equal(before, after)


def test_where_other_words_were_put_in_is_said_and_is_no_fake_by_itself(tmp_path):
    make_sample(tmp_path / "talk.mp4", seconds=8.0)
    pictures, sound = list(timed_pictures(tmp_path / "talk.mp4", 8.0)), load_audio(MediaFile(tmp_path / "talk.mp4"))
    begin, other = 75, 130
    for name, words in (("own", begin), ("other", other)):
        said = with_words_of(sound, begin * SAMPLES_PER_FRAME, words * SAMPLES_PER_FRAME)
        write(tmp_path / f"{name}.mp4", pictures, said, WRITTEN)
    own, other = (analyze(tmp_path / f"{name}.mp4", load_detector()) for name in ("own", "other"))
    assert own.verdict == "real" and other.verdict == "inconclusive"
    changed = next(reason for reason in other.reasons if reason.code == "changed_sync")
    start_s, end_s = (float(second) for second in re.findall(r"from ([\d.]+) to ([\d.]+) s", changed.detail)[0])
    assert 2 <= start_s < end_s <= 6
    worst = max(other.windows, key=lambda window: window.fake_probability or 0)
    assert 2 <= worst.start_s <= 5


def test_words_are_put_in_without_a_click():
    sound = np.arange(400 * SAMPLES_PER_FRAME, dtype=np.float32)
    begin, other = 100 * SAMPLES_PER_FRAME, (100 + PARTIAL + APART) * SAMPLES_PER_FRAME
    said, end = with_words_of(sound, begin, other), begin + PARTIAL * SAMPLES_PER_FRAME
    assert np.array_equal(said[:begin], sound[:begin]) and np.array_equal(said[end:], sound[end:])
    assert np.array_equal(said[begin + 1000 : end - 1000], sound[other + 1000 : other + end - begin - 1000])
    assert np.abs(np.diff(said[begin - 1 : begin + 2])).max() < 500 < other - begin


def test_too_short_a_clip_is_left_alone(tmp_path, painters):
    make_sample(tmp_path / "short.mp4", seconds=5.0)
    assert write_in_part(tmp_path / "short.mp4", tmp_path, painters) == {}


def test_each_kind_is_a_clip_of_its_own():
    kinds = kinds_of(Clip("real/lrs3/ann/1.mp4", False, "lrs3", "ann"))
    assert [kind for kind, one in kinds.items() if one.fake] == [GENERATED, CODED, SAID]
    assert {one.identity for one in kinds.values()} == {"ann"}
    assert len({one.path for one in kinds.values()}) == len(KINDS) == 4
