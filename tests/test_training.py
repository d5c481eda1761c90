"""Training and evaluation: honest splits, honest batches, figures that can be trusted, runs that resume."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model.detector import LipSyncDetector
from model.media import SAMPLES_PER_FRAME
from model.sample import speech
from model.seed_detector import SeedLipSyncDetector
from model.training.accuracy import sync_accuracy, window_offsets
from model.training.batches import Batch, Sampler, augment_mouths, augment_sounds, grey_and_small
from model.training.clips import NEVER_TRAIN, TRAIN_ONLY, Clip, list_clips, split_clips
from model.training.offsets import KnownOffset, judge, save_offsets, with_known_offsets
from model.training.prepare import PreparedClip
from model.training.statistics import auc, auc_over_identities, mean_over_identities
from model.training.train import PEAK_RATE, ContrastiveLoss, SeedLoss, new_run
from model.training.trials import EmbeddedClip, segments


def clip(identity: str = "a", corpus: str = "made", frames: int = 90, seed: int = 0) -> PreparedClip:
    """Mouths as bright as the sound is loud; every frame tells its number in one pixel."""
    voice = speech(frames / 25, 16_000, seed).waveform[: frames * SAMPLES_PER_FRAME]
    loud = np.abs(voice).reshape(frames, -1).mean(1)
    crops = np.full((frames, 96, 96, 3), 40, np.uint8)
    crops[:, 40:60, 30:66] = (40 + 200 * loud / loud.max())[:, None, None, None].astype(np.uint8)
    return PreparedClip(
        Clip(f"real/{corpus}/{identity}/{seed}.mp4", False, corpus, identity),
        crops, crops[..., 0], (voice * 32767).astype(np.int16), np.ones(frames, bool), np.zeros(frames, bool),
        loud.astype(np.float32), np.full(frames, 20.0, np.float32),
    )  # fmt: skip


def many() -> list[Clip]:
    return [
        Clip(f"{'fake' if fake else 'real'}/{corpus}/{person}/{i}.mp4", fake, corpus, person)
        for fake in (False, True)
        for corpus in ("lrs3", *TRAIN_ONLY, *NEVER_TRAIN)
        for person in (f"{corpus}-{n}" for n in range(20))
        for i in range(3)
    ]


def test_no_identity_is_on_two_sides_and_the_split_is_always_the_same():
    split = split_clips(many())
    sides = [{(c.fake, c.identity) for c in split[side]} for side in ("train", "val", "test")]
    assert not sides[0] & sides[1] and not sides[0] & sides[2] and not sides[1] & sides[2]
    assert sum(len(clips) for clips in split.values()) == len(many())
    assert split == split_clips(reversed(many())) or {
        side: sorted(clips, key=str) for side, clips in split.items()
    } == {side: sorted(clips, key=str) for side, clips in split_clips(reversed(many())).items()}
    assert not {c.corpus for c in split["train"]} & NEVER_TRAIN
    assert not {c.corpus for c in split["val"] + split["test"]} & TRAIN_ONLY
    assert {len({c.identity for c in split[s] if c.corpus == "lrs3" and not c.fake}) for s in split} == {10, 4, 6}


def test_clips_are_listed_from_a_manifest_or_from_the_folders(tmp_path):
    for path in ("real/lrs3/ann/1.mp4", "fake/wav2lip/bob__1.mp4"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).touch()
    expected = [
        Clip("fake/wav2lip/bob__1.mp4", True, "wav2lip", "bob"),
        Clip("real/lrs3/ann/1.mp4", False, "lrs3", "ann"),
    ]
    assert list_clips(tmp_path) == expected
    rows = [f"{c.path},{'fake' if c.fake else 'real'},{c.identity}" for c in expected]
    (tmp_path / "manifest.csv").write_text("\n".join(["path,label,identity", *rows]))
    assert list_clips(tmp_path) == expected
    with pytest.raises(FileNotFoundError):
        list_clips(tmp_path / "real")


def assert_sound_is_where_it_says(batch: Batch) -> None:
    for mouth, sound, lag in zip(batch.mouths, batch.sounds, batch.lag.tolist()):
        bright = mouth[:, :, 40:60, 36:60].mean((1, 2, 3)).numpy()
        loud = sound[0].reshape(44, -1).abs().mean(1).numpy()
        fits = [np.corrcoef(bright[10:34], loud[10 - k : 34 - k])[0, 1] for k in range(-8, 9)]
        assert abs(int(np.argmax(fits)) - 8 - lag) <= 2


def test_batches_put_the_sound_where_they_say():
    clips = [clip(str(i), seed=i) for i in range(6)]
    batch = Sampler(clips, seed=3).draw(6, 44)
    assert batch.mouths.shape == (6, 44, 3, 96, 96) and batch.sounds.shape == (6, 1, 44 * SAMPLES_PER_FRAME)
    assert batch.lag.abs().max() > 0
    assert_sound_is_where_it_says(batch)


def test_few_clips_are_enough_and_too_short_ones_are_refused():
    assert Sampler([clip()], seed=0).draw(4, 20).mouths.shape[0] == 4
    with pytest.raises(ValueError, match="no clip"):
        Sampler([clip(frames=30)], seed=0).draw(4, 44)


def test_a_clip_whose_sound_is_known_to_be_late_is_put_in_time():
    clips = [clip(str(i), seed=i, frames=100) for i in range(6)]
    late = [replace(c, audio=np.roll(c.audio, 3 * SAMPLES_PER_FRAME), sound_late=3) for c in clips]
    straight, mended = Sampler(clips, seed=3).draw(6, 44), Sampler(late, seed=3).draw(6, 44)
    for one, other, lag in zip(straight.mouths, mended.mouths, mended.lag.tolist()):
        assert one.shape == other.shape and abs(lag) <= 5
    assert_sound_is_where_it_says(mended)


def test_a_batch_holds_other_speech_of_the_same_person():
    clips = [clip(str(i % 8), seed=i, frames=60) for i in range(16)]
    sampler, pairs = Sampler(clips, seed=1), 0
    seen: list[str] = []
    cut = sampler._cut

    def noted(chosen, *rest):
        seen.append(chosen.clip.identity)
        return cut(chosen, *rest)

    sampler._cut = noted
    for _ in range(5):
        seen.clear()
        sampler.draw(8, 20)
        pairs += sum(a == b for a, b in zip(seen[::2], seen[1::2]))
    assert pairs >= 18


def test_offsets_come_from_the_clip_and_from_the_person():
    def curve(late: int, height: float) -> np.ndarray:
        return np.where(np.arange(-6, 7) == late, height, 0.0)

    clips = [Clip(f"{i}.mp4", False, "c", "ann") for i in range(3)] + [Clip("b.mp4", False, "c", "bob")]
    known = judge(dict(zip(clips, (curve(2, 9.0), curve(2, 9.0), curve(0, 0.5), curve(-3, 9.0)))))
    assert [known[c.path].late for c in clips] == [2, 2, 2, -3]
    assert known["0.mp4"].sure > 0.9
    assert judge({clips[0]: curve(0, 0.0)})["0.mp4"].sure < 0.3


def test_unsure_and_far_offsets_are_left_out_of_training(tmp_path):
    clips = [clip(str(i), seed=i) for i in range(3)]
    assert with_known_offsets(clips, tmp_path) == clips
    facts = zip(clips, (KnownOffset(1, 0.9), KnownOffset(0, 0.1), KnownOffset(6, 0.9)))
    save_offsets({c.clip.path: of for c, of in facts}, tmp_path)
    kept = with_known_offsets(clips, tmp_path)
    assert [(c.clip.path, c.sound_late) for c in kept] == [(clips[0].clip.path, 1)]


def test_augmenting_keeps_range_and_time():
    rng = torch.Generator().manual_seed(0)
    mouths = augment_mouths(torch.rand(40, 1, 64, 64), 20, rng)
    assert mouths.shape == (40, 1, 64, 64) and mouths.min() >= 0 and mouths.max() <= 1
    sounds = torch.zeros(64, 16_000)
    sounds[:, 8_000:8_400] = 0.8 * torch.randn(64, 400)
    begins = augment_sounds(sounds, rng).abs()
    peak = begins.view(64, 100, 160).mean(2).argmax(1)
    assert ((peak - 50).abs() <= 3).float().mean() > 0.9


def test_grey_and_small_is_what_the_detector_makes_of_a_crop():
    small = grey_and_small(clip())
    assert small.crops.shape == (90, 64, 64, 1) and small.crops.dtype == np.uint8


def test_both_losses_fall_when_trained_on_a_few_clips():
    clips = [clip(str(i), seed=i) for i in range(6)]
    for name in ("lipsync", "seed"):
        run = new_run(name, torch.device("cpu"))
        for group in run.optimizer.param_groups:
            group["lr"] = PEAK_RATE[name] / 4
        batch = Sampler(clips, seed=0).draw(6, 20)
        losses = []
        for _ in range(4):
            random.seed(0)
            loss = run.loss(run.detector, batch)
            run.optimizer.zero_grad()
            loss.backward()
            run.optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0], name


def test_the_loss_is_least_when_mouth_and_voice_agree():
    class Told(LipSyncDetector):
        def encode_video(self, mouth_frames):
            return mouth_frames

        def encode_audio(self, audio_segment):
            return audio_segment

    truth = torch.nn.functional.normalize(torch.randn(4, 30, 256), dim=-1)
    lag = torch.tensor([0, 2, -3, 1])
    heard = torch.stack([one.roll(-int(k), 0) for one, k in zip(truth, lag)])
    weight = torch.ones(4, 30)
    right = ContrastiveLoss()(Told(), Batch(truth, heard, lag, weight))
    wrong = ContrastiveLoss()(Told(), Batch(truth, heard, -lag, weight))
    assert right < 0.6 * wrong
    assert SeedLoss()(SeedLipSyncDetector(), Sampler([clip()], seed=0).draw(4, 20)).isfinite()


@pytest.mark.parametrize("name", ["lipsync", "seed"])
def test_a_run_resumes_where_it_was(tmp_path, name):
    run = new_run(name, torch.device("cpu"))
    run.step, run.minutes = 7, 1.5
    run.save(tmp_path / "run.pt")
    again = new_run(name, torch.device("cpu"))
    for parameter in [*again.detector.parameters(), *again.loss.parameters()]:
        torch.nn.init.zeros_(parameter)
    again.restore(tmp_path / "run.pt")
    assert (again.step, again.minutes) == (7, 1.5)
    pairs = zip(
        [*run.detector.parameters(), *run.loss.parameters()], [*again.detector.parameters(), *again.loss.parameters()]
    )
    assert all(torch.equal(a, b) for a, b in pairs)
    assert [p.name for p in tmp_path.iterdir()] == ["run.pt"]


def test_accuracy_of_an_untrained_detector_is_chance_and_of_a_late_clip_its_lateness():
    torch.manual_seed(0)
    frames = dict(window_offsets(SeedLipSyncDetector(), clip(), 5).items())
    assert set(frames) == {5, 15, 25} and all(len(offsets) == 5 for offsets in frames.values())
    assert all(np.abs(offsets).max() <= 15 for offsets in frames.values())
    assert sync_accuracy(LipSyncDetector(), [clip(seed=i, identity=str(i)) for i in range(3)])[5] < 0.5


def test_shared_and_strict_context_agree_on_a_sure_thing():
    """A detector that hears and sees only loudness finds the offset of a clip of brightness by loudness."""

    class Loudness(LipSyncDetector):
        def encode_video(self, mouth_frames):
            level = mouth_frames[:, :, :, 40:60, 30:66].mean((2, 3, 4))
            return torch.stack([level - 0.4, torch.ones_like(level) * 0], -1)

        def encode_audio(self, audio_segment):
            level = audio_segment[:, 0].unflatten(1, (-1, SAMPLES_PER_FRAME)).abs().mean(2)
            return torch.stack([level - 0.04, torch.ones_like(level) * 0], -1)

    late = clip(seed=5)
    late = replace(late, audio=np.roll(late.audio, 3 * SAMPLES_PER_FRAME))
    for context in ("shared", "strict"):
        found = window_offsets(Loudness(), late, 8, context)[25]
        assert np.median(found) == 3


def test_intervals_are_over_people():
    sure = mean_over_identities({str(i): [1.0] * 50 for i in range(10)})
    assert (sure.value, sure.low, sure.high, sure.identities) == (1, 1, 1, 10)
    split = mean_over_identities({str(i): [float(i % 2)] * 1000 for i in range(10)})
    assert split.value == 0.5 and split.low < 0.3 and split.high > 0.7
    assert auc([2, 3], [0, 1]) == 1 and auc([1], [1]) == 0.5
    both = auc_over_identities({"a": [2.0], "b": [3.0]}, {"a": [0.0], "b": [1.0]})
    assert both.value == 1 and both.identities == 2


def test_moving_the_sound_of_a_trial_cuts_both_ends_and_pads_nothing():
    ramp = np.arange(100, dtype=np.float32)
    trial = EmbeddedClip(
        Clip("x", False, "c", "i"), ramp[:, None], ramp[:, None], ramp, ramp > -1, ramp < 0, ramp, ramp, ramp[:, None],
        ramp,
    )  # fmt: skip
    late = trial.with_sound_late_by(5)
    assert len(late.video) == len(late.audio) == 95
    assert (late.video[:, 0] - late.audio[:, 0] == 5).all()
    assert [len(part.video) for part in segments(trial)] == [75]
    swapped = trial.with_sound_of(trial.part(40, 90))
    assert len(swapped.video) == 50 and swapped.audio[0, 0] == 40 and swapped.video[0, 0] == 0
    partly = trial.with_stretch_of(trial.part(0, 60), 30, 10)
    assert partly.video[29:41, 0].tolist() == [29, *range(25, 35), 40] == partly.rendered[29:41].tolist()


DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.mark.skipif(
    not (DATA / "manifest.csv").exists(), reason=f"needs real clips in {DATA}, which are not in the product"
)
def test_real_clips_of_unknown_people_are_in_sync():
    from model import analyze, load_detector

    test = [c for c in split_clips(list_clips(DATA))["test"] if not c.fake and c.corpus in ("lrs3", "voxceleb2")]
    detector = load_detector()
    answers = [analyze(DATA / c.path, detector) for c in test[:8]]
    judged = [a for a in answers if a.sync.offset_ms is not None]
    assert len(judged) >= 5
    assert np.mean([abs(a.sync.offset_ms) <= 80 for a in judged]) >= 0.75
    assert np.mean([a.verdict == "fake" for a in judged]) <= 0.25
