"""What can't be judged is found on people whom the network of looks lacks."""

import numpy as np
import pytest
import torch

from model.engine import Detector
from model.results import DetectorInfo
from model.temporal import FRAMES, TemporalDetector, trunk
from model.training import limits
from model.training.clips import Clip
from model.training.limits import THIRDS, Trial, load_without, tabulate, third_of, train_without, with_look_of
from model.training.report import Report
from model.training.scores import Answer
from model.training.train_temporal import GreyClip
from model.verdict import MAX_QUANTIZER, UNFITTED, Kinds

PEOPLE = [Clip(f"real/lrs3/p{i}/0.mp4", False, "lrs3", f"p{i}") for i in range(20)]


def trial(clip: Clip, quantizer: float, probability: float, seconds: float = 3.0) -> Trial:
    fake = probability > 0.9 and seconds >= 2
    answer = Answer(clip, seconds, probability, "fake" if fake else "real", Kinds(0.0, *[probability] * 3))
    return Trial("in some way", quantizer, quantizer <= MAX_QUANTIZER, answer)


def test_false_accusations_are_told_by_how_coarsely_a_clip_is_coded(monkeypatch):
    monkeypatch.setattr("model.training.statistics.RESAMPLES", 20)
    made = [Clip(f"fake/Loopy/{c.identity}.mp4", True, "Loopy", c.identity) for c in PEOPLE]
    found = [trial(clip, 20.0, 0.2) for clip in PEOPLE] + [trial(clip, 20.0, 0.95) for clip in made]
    found += [trial(clip, 36.0, 0.95) for clip in PEOPLE] + [trial(clip, 36.0, 0.2) for clip in made]
    found.append(trial(PEOPLE[0], 20.0, 0.99, seconds=1.5))
    report = Report()
    tabulate(report, found)
    by_qp, by_way = report.sections.values()
    assert by_qp["QP 0 to 22"]["real called fake"].value == 0 and by_qp["QP 34 to 52"]["real called fake"].value == 1
    assert by_qp["QP 0 to 22"]["AUC of probability"].value > 0.9
    assert by_qp["QP 0 to 22"]["AUC of look alone"].value > 0.9 > 0.1 > by_qp["QP 34 to 52"]["AUC of look alone"].value
    of_way = by_way["in some way"]
    assert 0.4 < of_way["real called fake"].value < 0.5 and of_way["real called fake, within the limit"].value == 0
    assert of_way["highest probability of real within it"].value == 0.2


def test_a_network_sees_nobody_of_its_third(tmp_path, monkeypatch):
    rendered = []

    def render(clips, cache, run, generator):
        rendered.append({clip.identity for clip in clips})
        mouths = np.random.default_rng(0).integers(0, 256, (2 * FRAMES, 96, 96)).astype(np.uint8)
        return [GreyClip(clips[0], mouths, mouths, mouths, np.ones(len(mouths), bool))]

    torch.save(trunk().state_dict(), tmp_path / "photographs.pth")
    monkeypatch.setattr("model.training.train_temporal.photographs", lambda: tmp_path / "photographs.pth")
    monkeypatch.setattr(limits, "render_clips", render)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    for third in range(THIRDS):
        train_without(third, PEOPLE, tmp_path, tmp_path, tmp_path, minutes=1e-4)
    train_without(0, PEOPLE, tmp_path, tmp_path, tmp_path, minutes=1e-4)
    assert len(rendered) == THIRDS, "what is trained is not trained again"
    everybody = {clip.identity for clip in PEOPLE}
    lacked = [everybody - seen for seen in rendered]
    assert [{clip.identity for clip in PEOPLE if third_of(clip) == third} for third in range(THIRDS)] == lacked
    assert all(lacked) and set.union(*lacked) == everybody and sum(map(len, lacked)) == len(everybody)
    assert load_without(0, tmp_path)(torch.zeros(1, FRAMES, 96, 96)).shape == (1,)
    with pytest.raises(FileNotFoundError):
        load_without(0, tmp_path / "elsewhere")


def test_only_the_look_is_another_networks():
    asked = []

    def run(kind: str, items: np.ndarray) -> np.ndarray:
        asked.append(kind)
        return items

    network = TemporalDetector().eval()
    detector = with_look_of(Detector(DetectorInfo("made", "0", "cpu", {}, {}), UNFITTED, 1.0, run), network)
    items = np.random.default_rng(0).integers(0, 256, (1, FRAMES, 96, 96)).astype(np.uint8)
    with torch.inference_mode():
        expected = network(torch.from_numpy(items)).numpy()
    assert detector.run("sequences", items) == pytest.approx(expected)
    assert detector.run("mouths", items) is items and asked == ["mouths"]
