"""The generator of mouths: it paints the hole and nothing else, hears, learns, resumes."""

import numpy as np
import pytest
import torch

from model.detector import LipSyncDetector
from model.media import SAMPLES_PER_FRAME
from model.training.clips import Clip
from model.training.generator import (
    FAR,
    HOLE,
    MouthGenerator,
    StretchSampler,
    load_generator,
    new_run,
    paint,
    painting_loss,
    rerender_mouths,
    train,
    voice_of,
    with_hole,
)  # fmt: skip
from model.training.prepare import PreparedClip
from model.weights import save_weights


def numbered(frames: int = 60, hidden: slice = slice(0, 0), late: int = 0) -> PreparedClip:
    """Every picture is as bright as its number, but for a dark left half."""
    crops = np.repeat(np.arange(frames, dtype=np.uint8), 96 * 96 * 3).reshape(frames, 96, 96, 3) * 2
    crops[:, :, :48] //= 2
    visible = np.ones(frames, bool)
    visible[hidden] = False
    noise = np.random.default_rng(0).normal(0, 3000, frames * SAMPLES_PER_FRAME).astype(np.int16)
    opening, quantizer = np.zeros(frames, np.float32), np.full(frames, 20.0, np.float32)
    held = np.zeros(frames, bool)
    return PreparedClip(
        Clip("real/a/b/c", False, "a", "b"), crops, crops[..., 0], noise, visible, held, opening, quantizer, late
    )


@pytest.fixture(scope="module")
def judge() -> LipSyncDetector:
    torch.manual_seed(0)
    return LipSyncDetector().eval()


def test_only_the_hole_is_painted_and_nothing_in_it_shines_through():
    generator = MouthGenerator().eval()
    mouths = torch.rand(2, 3, 96, 96)
    other = torch.where(HOLE == 1, torch.rand(2, 3, 96, 96), mouths)
    with torch.inference_mode():
        painted, again = (generator(with_hole(m), mouths.flip(0), torch.rand(2, 256) * 0) for m in (mouths, other))
    assert painted.min() >= 0 and painted.max() <= 1
    assert torch.equal(painted[..., HOLE == 0], mouths[..., HOLE == 0])
    assert (painted - mouths)[..., HOLE == 1].abs().mean() > 0.05
    assert torch.allclose(painted, again, atol=1e-5)
    assert HOLE[40:60, 30:66].min() == 1 and HOLE[:20].max() == 0 and HOLE[-1, 48] == 1
    assert ((HOLE > 0) & (HOLE < 1)).any()


def test_voice_and_reference_are_made_use_of():
    generator = MouthGenerator().eval()
    mouths, references, voices = torch.rand(1, 3, 96, 96), torch.rand(2, 3, 96, 96), torch.randn(2, 256) / 16
    with torch.inference_mode():
        plain, shown, heard = (
            generator(with_hole(mouths), references[i : i + 1], voices[k : k + 1]) for i, k in ((0, 0), (1, 0), (0, 1))
        )
    assert (plain - shown).abs().max() > 1e-3 and (plain - heard).abs().max() > 1e-3


def test_stretches_are_visible_and_their_reference_is_far_away():
    clip = numbered(60, hidden=slice(20, 25))
    numbers = torch.arange(60.0)[:, None].expand(-1, 256)
    batch = StretchSampler([clip, numbered(3)], [numbers, numbers[:3]], 6, seed=1).draw(40)
    assert batch.mouths.shape == (40, 6, 3, 96, 96) and batch.reference.shape == (40, 3, 96, 96)
    pictures, reference = (x.amax((-3, -2, -1)) * 255 / 2 for x in (batch.mouths, batch.reference))
    assert torch.allclose(pictures, batch.voice[..., 0], atol=0.01)
    assert torch.allclose(pictures.diff(dim=1), torch.ones(40, 5), atol=0.01)
    seen = torch.cat([pictures.flatten(), reference])
    assert not ((seen > 19.5) & (seen < 24.5)).any()
    assert (pictures - reference[:, None]).abs().min() > FAR - 0.5
    bright_left = batch.mouths[:, 0, 0, 0, 0] > batch.mouths[:, 0, 0, 0, -1]
    assert bright_left.any() and not bright_left.all()
    assert torch.equal(bright_left, batch.reference[:, 0, 0, 0] > batch.reference[:, 0, 0, -1])


def test_the_reference_in_a_short_clip_is_as_far_as_it_can_be():
    batch = StretchSampler([numbered(7)], [torch.zeros(7, 256)], 6, seed=0).middles()
    assert batch.reference.max() * 255 / 2 == pytest.approx(0, abs=0.01)


def test_a_voice_known_to_be_late_is_taken_from_later(judge):
    early, late = voice_of(judge, numbered()), voice_of(judge, numbered(late=2))
    assert early.shape == (60, 256)
    assert torch.allclose(late[:-2], early[2:]) and not torch.allclose(late[:-2], early[:-2])


def test_sync_counts_later_in_training_and_teaches_the_generator_alone(judge):
    run = new_run(judge)
    batch = StretchSampler([numbered()], [voice_of(judge, numbered())], 6, seed=0).draw(2)
    painted = paint(run.generator, batch)
    early, late = (painting_loss(painted, batch, judge, progress) for progress in (0.1, 1.0))
    assert early < late
    assert painting_loss(batch.mouths, batch, judge, 0.1) == 0
    (late - early).backward()
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in run.generator.parameters())
    assert not any(p.grad is not None or p.requires_grad for p in judge.parameters()) and not judge.training


def test_it_learns_to_paint(judge):
    run = new_run(judge)
    batch = StretchSampler([numbered()], [voice_of(judge, numbered())], 6, seed=0).draw(2)
    losses = []
    for _ in range(12):
        loss = painting_loss(paint(run.generator, batch), batch, judge, 0.0)
        run.optimizer.zero_grad()
        loss.backward()
        run.optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_training_writes_a_generator_and_goes_on_where_it_stopped(judge, tmp_path, capsys):
    clips = [numbered()]
    train(judge, clips, clips, 1e-3, tmp_path / "g.pt", tmp_path / "g.safetensors")
    first = torch.load(tmp_path / "g.pt", weights_only=True)
    before, minutes = first["step"], first["minutes"] + 0.005
    train(judge, clips, clips, minutes, tmp_path / "g.pt", tmp_path / "g.safetensors")
    state = torch.load(tmp_path / "g.pt", weights_only=True)
    assert "resumed at step 1" in capsys.readouterr().out
    assert before == 1 and state["step"] > before and state["minutes"] >= minutes and len(state["history"]) == 2
    assert {"l1", "sync_generated", "sync_real"} <= state["history"][-1].keys()
    load_generator(tmp_path / "g.safetensors")


def test_mouths_are_rendered_again_as_pictures(tmp_path):
    save_weights(MouthGenerator(), tmp_path / "g.safetensors")
    generator = load_generator(tmp_path / "g.safetensors")
    mouths = np.random.default_rng(0).integers(0, 256, (70, 96, 96, 3), np.uint8)
    voice = np.random.default_rng(1).normal(0, 1 / 16, (70, 256)).astype(np.float32)
    painted = rerender_mouths(generator.train(), mouths, mouths[3], voice)
    assert painted.shape == mouths.shape and painted.dtype == np.uint8
    kept = (HOLE == 0).numpy()
    assert np.array_equal(painted[:, kept], mouths[:, kept])
    assert np.abs(rerender_mouths(generator, mouths[66:], mouths[3], voice[66:]).astype(int) - painted[66:]).max() <= 1
