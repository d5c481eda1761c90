"""Generators of moving mouths: a still moves as it is told, sharper by a critic, and learns to."""

import numpy as np
import pytest
import torch

from model.training.adversary import Adversary, painting_error, step
from model.training.reenactor import KINDS, Kind, MouthReenactor, PairSampler, reenacted_mouths

HERE = torch.device("cpu")


def bars(at: int, count: int = 12, level: int = 230) -> np.ndarray:
    """Pictures with a bright bar that moves down by three rows each."""
    pictures = np.full((count, 96, 96, 3), 40, np.uint8)
    for number, picture in enumerate(pictures):
        picture[at + 3 * number : at + 3 * number + 12, 20:76] = level
    return pictures


def test_pairs_are_of_one_clip_mirrored_alike_and_of_rare_corpora_more_often():
    clips = [np.full((90, 96, 96, 3), 10, np.uint8), np.full((10, 96, 96, 3), 200, np.uint8)]
    clips[0][:, :, :48] = 20
    still, other = PairSampler(clips, ["large", "small"], HERE, seed=0).draw(400)
    assert still.shape == other.shape == (400, 3, 96, 96)
    assert torch.equal(still, other), "pictures of a clip are all alike here"
    rare = (still.amax((1, 2, 3)) > 0.5).float().mean().item()
    assert 0.1 < rare < 0.3
    dark = still[still.amax((1, 2, 3)) < 0.5]
    assert 0.3 < (dark[:, 0, 0, 0] > dark[:, 0, 0, -1]).float().mean() < 0.7


@pytest.mark.parametrize("kind", KINDS)
def test_a_still_is_painted_at_its_size_for_every_motion(kind: Kind):
    crops = bars(10)
    painted = reenacted_mouths(MouthReenactor(kind).eval(), crops, crops[0], smooth_frames=0.0)
    assert painted.shape == crops.shape and painted.dtype == np.uint8


def test_the_motion_says_what_is_painted_and_a_smooth_one_less():
    class Follower:
        """As bright as the motion."""

        def read(self, motion: torch.Tensor) -> torch.Tensor:
            return motion.mean((1, 2, 3))[:, None]

        def moved_by(self, still: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
            return still * 0 + code[:, :, None, None]

    crops = np.repeat(np.uint8([10, 250] * 6), 96 * 96 * 3).reshape(12, 96, 96, 3)
    sharp, smooth = (reenacted_mouths(Follower(), crops, crops[0], frames)[:, 0, 0, 0] for frames in (0.0, 2.0))
    assert np.abs(sharp.astype(int) - crops[:, 0, 0, 0]).max() <= 1
    assert np.ptp(smooth[4:-4]) < 10 and 100 < smooth.mean() < 160


def test_it_learns_to_move_a_still():
    torch.manual_seed(0)
    pairs, reenactor = PairSampler([bars(10), bars(30, level=180)], ["a", "a"], HERE, seed=0), MouthReenactor(KINDS[0])
    optimizer, adversary, errors = torch.optim.AdamW(reenactor.parameters()), Adversary(HERE), []
    for number in range(14):
        still, real = pairs.draw(6)
        painted = reenactor(still, real)
        errors.append(painting_error(painted, real).item())
        step(optimizer, adversary, painted, real, critical=number > 10)
    assert errors[10] < 0.6 * errors[0] and np.isfinite(errors).all()


def test_the_critic_learns_what_is_painted_and_teaches_the_painter_alone():
    torch.manual_seed(0)
    adversary = Adversary(HERE)
    real = torch.rand(4, 3, 96, 96)
    painted = torch.nn.functional.avg_pool2d(real, 5, 1, 2).requires_grad_()
    for _ in range(30):
        adversary.learn(painted, real)
    assert painted.grad is None
    with torch.inference_mode():
        assert adversary.critic(real)[-1].mean() > adversary.critic(painted)[-1].mean() + 0.5
    adversary.loss(painted, real).backward()
    assert painted.grad is not None and painted.grad.abs().max() > 0
    assert adversary.loss(real, real) < adversary.loss(painted, real)
