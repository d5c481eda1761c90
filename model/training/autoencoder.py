"""Small autoencoders of mouths, so that a detector of rendered content sees what decoders leave in pictures.

Generators, whatever they paint, put their pictures together by enlarging maps of features, each in one of a few
ways, through a bottleneck that forgets fine detail. Real mouths that went through such a bottleneck differ from
themselves in nothing else. Trained from real clips only. Run:
``python -m model.training.autoencoder --data DIR [--minutes N]``.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from model.training.clips import list_clips, split_clips
from model.training.generator import PICTURES_AT_ONCE, as_pictures, as_pixels, conv
from model.training.prepare import PreparedClip, load_prepared
from model.training.train import learning_rate
from model.weights import load_weights, save_weights


@dataclass(frozen=True, slots=True)
class Kind:
    """``halvings`` of height and width down to ``latent`` channels; ``enlarge``: how the way back up is made."""

    enlarge: str
    halvings: int
    latent: int


KINDS = (Kind("nearest", 3, 16), Kind("shuffle", 3, 12), Kind("transposed", 2, 4), Kind("bilinear", 2, 6))
WIDTHS = (24, 48, 96)
MOUTHS_PER_STEP = 22
PEAK_RATE = 2e-3
EDGE_WEIGHT = 2.0


class MouthAutoencoder(nn.Module):
    """``forward(mouths)``: (N, 3, H, W) in [0, 1], sides multiples of 8; returns the same through a bottleneck."""

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        widths = WIDTHS[: kind.halvings]
        down = [part for before, after in zip((3, *widths), widths) for part in (conv(before, after, 2), _same(after))]
        self.encoder = nn.Sequential(*down, nn.Conv2d(widths[-1], kind.latent, 1))
        wide = (*widths[::-1], widths[0])
        up = [part for before, after in zip(wide, wide[1:]) for part in (_enlarged(kind, before, after), _same(after))]
        self.decoder = nn.Sequential(conv(kind.latent, wide[0]), *up, nn.Conv2d(wide[-1], 3, 3, padding=1))

    def forward(self, mouths: Tensor) -> Tensor:
        return self.decoder(self.encoder(mouths)).sigmoid()


def _same(channels: int) -> nn.Sequential:
    return conv(channels, channels)


def _enlarged(kind: Kind, before: int, after: int) -> nn.Module:
    if kind.enlarge == "transposed":
        return nn.Sequential(nn.ConvTranspose2d(before, after, 4, stride=2, padding=1), nn.ReLU())
    if kind.enlarge == "shuffle":
        return nn.Sequential(nn.Conv2d(before, 4 * after, 3, padding=1), nn.PixelShuffle(2), nn.ReLU())
    return nn.Sequential(nn.Upsample(scale_factor=2, mode=kind.enlarge), conv(before, after))


def train(kind: Kind, clips: Sequence[PreparedClip], minutes: float) -> MouthAutoencoder:
    """An autoencoder trained on ``clips`` for ``minutes`` of wall time; prints the mean error of the last minute."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    autoencoder = MouthAutoencoder(kind).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(autoencoder.parameters(), weight_decay=0.01)
    began, errors = time.monotonic(), []
    while (spent := (time.monotonic() - began) / 60) < minutes:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(spent / minutes, PEAK_RATE)
        chosen = [clips[index].crops for index in rng.integers(len(clips), size=MOUTHS_PER_STEP)]
        pictures = as_pictures(np.stack([crops[rng.integers(len(crops))] for crops in chosen]))
        error = autoencoder(pictures) - pictures
        edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        errors.append(error.abs().mean().item())
        optimizer.zero_grad()
        (error.abs().mean() + EDGE_WEIGHT * edges).backward()
        optimizer.step()
    print(f"{kind}: {len(errors)} steps, mean error {np.mean(errors[-50:]):.4f}", flush=True)
    return autoencoder.eval()


def load_autoencoder(kind: Kind, folder: Path) -> MouthAutoencoder:
    """A trained one, ready to be used. Raises FileNotFoundError."""
    autoencoder = MouthAutoencoder(kind).to(memory_format=torch.channels_last)
    load_weights(autoencoder, _file(folder, kind))
    return autoencoder.eval()


def _file(folder: Path, kind: Kind) -> Path:
    return folder / f"autoencoder_{kind.enlarge}.safetensors"


def coded_mouths(autoencoder: MouthAutoencoder, crops: np.ndarray) -> np.ndarray:
    """Crops (T, 96, 96, 3) uint8 as they come out of an autoencoder."""
    with torch.inference_mode():
        return as_pixels(torch.cat([autoencoder(some) for some in as_pictures(crops).split(PICTURES_AT_ONCE)]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train the autoencoders of mouths.")
    parser.add_argument("--data", type=Path, required=True, help="folder of clips")
    parser.add_argument("--cache", type=Path, default=Path("build/cache"))
    parser.add_argument("--run", type=Path, default=Path("build/run"), help="where they are kept")
    parser.add_argument("--minutes", type=float, default=3.0, help="wall time for each")
    arguments = parser.parse_args()
    arguments.run.mkdir(parents=True, exist_ok=True)
    real = load_prepared([c for c in split_clips(list_clips(arguments.data))["train"] if not c.fake], arguments.cache)
    for kind in KINDS:
        save_weights(train(kind, real, arguments.minutes), _file(arguments.run, kind))
