"""A critic that makes generators of mouths as sharp as published ones are.

Without one a painted mouth is the mean of all that it could be, so blurred as no generator's is. The critic says of every
patch whether it was painted (PatchGAN, Isola et al. 2017; spectral normalisation, Miyato et al. 2018; hinge loss); its
features say how far a painted mouth is from the real one (feature matching, Wang et al. 2018).
"""

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from model.training.train import learning_rate

CHANNELS = (3, 48, 96, 192)
"""At 96 x 96, 48 x 48, 24 x 24 and 12 x 12."""

PEAK_RATE, BETAS, STEEPEST = 4e-4, (0.5, 0.99), 1.0
PIXEL_WEIGHT, EDGE_WEIGHT, FEATURE_WEIGHT = 10.0, 10.0, 10.0
"""Of errors of pixels, of edges, and of the critic's features, against 1 for what the critic says."""

CRITICAL_FROM = 0.15
"""Share of a training after which the critic has a say."""


class Critic(nn.Module):
    """``forward(mouths)``: (N, 3, H, W) in [0, 1]; the features of each layer, the last (N, 1, H / 8, W / 8).

    The last are its opinion of patches, > 0: filmed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(spectral_norm(nn.Conv2d(before, after, 4, stride=2, padding=1)), nn.LeakyReLU(0.2))
            for before, after in zip(CHANNELS, CHANNELS[1:])
        )
        self.opinion = spectral_norm(nn.Conv2d(CHANNELS[-1], 1, 3, padding=1))

    def forward(self, mouths: Tensor) -> list[Tensor]:
        features = [mouths * 2 - 1]
        for layer in self.layers:
            features.append(layer(features[-1]))
        return [*features[1:], self.opinion(features[-1])]


class Adversary:
    """A critic and its training, on ``device``."""

    def __init__(self, device: torch.device) -> None:
        self.critic = Critic().to(device, memory_format=torch.channels_last)
        self.optimizer = torch.optim.AdamW(self.critic.parameters(), PEAK_RATE, betas=BETAS)

    def loss(self, painted: Tensor, real: Tensor) -> Tensor:
        """What a generator should make small, having painted ``real``, both (N, 3, H, W) in [0, 1]."""
        with _lower_precision(real):
            *known, _ = self.critic(real)
            *found, opinion = self.critic(painted)
        features = torch.stack([(a.float() - b.detach().float()).abs().mean() for a, b in zip(found, known)]).mean()
        return painting_error(painted, real) + FEATURE_WEIGHT * features - opinion.float().mean()

    def learn(self, painted: Tensor, real: Tensor) -> None:
        """Become better at telling them apart, by a step."""
        with _lower_precision(real):
            wrong, right = self.critic(painted.detach())[-1], self.critic(real)[-1]
        loss = F.relu(1 + wrong.float()).mean() + F.relu(1 - right.float()).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def painting_error(painted: Tensor, real: Tensor) -> Tensor:
    """L1 of pixels and of edges, as they count beside a critic."""
    error = painted - real
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return PIXEL_WEIGHT * error.abs().mean() + EDGE_WEIGHT * edges


def train(
    painter: nn.Module, paint: Callable[[], tuple[Tensor, Tensor]], minutes: float, peak_rate: float
) -> list[float]:
    """Train ``painter`` for ``minutes`` of wall time, a critic beside it; the mean absolute error of every step.

    ``paint()``: what it paints of other mouths every time, and these, both (N, 3, H, W) in [0, 1].
    """
    optimizer = torch.optim.AdamW(painter.parameters(), betas=BETAS, weight_decay=0.01)
    adversary = Adversary(next(painter.parameters()).device)
    began, errors = time.monotonic(), []
    while (spent := (time.monotonic() - began) / 60) < minutes:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(spent / minutes, peak_rate)
        painted, real = paint()
        step(optimizer, adversary, painted, real, spent > CRITICAL_FROM * minutes)
        errors.append((painted.detach() - real).abs().mean().item())
    return errors


def step(optimizer: torch.optim.Optimizer, adversary: Adversary, painted: Tensor, real: Tensor, critical: bool) -> None:
    """Make a painter better, and, if ``critical``, by and with its critic."""
    loss = adversary.loss(painted, real) if critical else painting_error(painted, real)
    optimizer.zero_grad()
    loss.backward()
    for group in optimizer.param_groups:
        nn.utils.clip_grad_norm_(group["params"], STEEPEST)
    optimizer.step()
    if critical:
        adversary.learn(painted, real)


def _lower_precision(like: Tensor) -> torch.autocast:
    return torch.autocast(like.device.type, torch.bfloat16)
