"""Small autoencoders of faces, so that a detector of rendered content sees what decoders leave in pictures.

Generators, whatever they paint, put their pictures together by enlarging maps of features, each in one of a few
ways, through a bottleneck that forgets fine detail. Real faces that went through such a bottleneck differ from
themselves in nothing else. Trained from real clips only. Run:
``python -m model.training.autoencoder --data DIR [--minutes N]``.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from model.training.clips import list_clips, split_clips
from model.training.generator import PICTURES_AT_ONCE, as_pictures, as_pixels, conv
from model.training.prepare import PreparedFaces, load_faces
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
FACES_PER_STEP = 8
PEAK_RATE = 2e-3
EDGE_WEIGHT = 2.0


class FaceAutoencoder(nn.Module):
    """``forward(faces)``: (N, 3, H, W) in [0, 1], sides multiples of 8; returns the same through a bottleneck."""

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        widths = WIDTHS[: kind.halvings]
        down = [part for before, after in zip((3, *widths), widths) for part in (conv(before, after, 2), _same(after))]
        self.encoder = nn.Sequential(*down, nn.Conv2d(widths[-1], kind.latent, 1))
        wide = (*widths[::-1], widths[0])
        up = [part for before, after in zip(wide, wide[1:]) for part in (_enlarged(kind, before, after), _same(after))]
        self.decoder = nn.Sequential(conv(kind.latent, wide[0]), *up, nn.Conv2d(wide[-1], 3, 3, padding=1))

    def forward(self, faces: Tensor) -> Tensor:
        return self.decoder(self.encoder(faces)).sigmoid()


def _same(channels: int) -> nn.Sequential:
    return conv(channels, channels)


def _enlarged(kind: Kind, before: int, after: int) -> nn.Module:
    if kind.enlarge == "transposed":
        return nn.Sequential(nn.ConvTranspose2d(before, after, 4, stride=2, padding=1), nn.ReLU())
    if kind.enlarge == "shuffle":
        return nn.Sequential(nn.Conv2d(before, 4 * after, 3, padding=1), nn.PixelShuffle(2), nn.ReLU())
    return nn.Sequential(nn.Upsample(scale_factor=2, mode=kind.enlarge), conv(before, after))


def train(kind: Kind, faces: Sequence[PreparedFaces], minutes: float) -> FaceAutoencoder:
    """An autoencoder trained on ``faces`` for ``minutes`` of wall time; prints the mean error of the last minute."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    autoencoder = FaceAutoencoder(kind).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(autoencoder.parameters(), weight_decay=0.01)
    began, errors = time.monotonic(), []
    while (spent := (time.monotonic() - began) / 60) < minutes:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(spent / minutes, PEAK_RATE)
        chosen = [faces[index] for index in rng.integers(len(faces), size=FACES_PER_STEP)]
        pictures = as_pictures(np.stack([one.pixels[rng.integers(len(one.at)), rng.integers(2)] for one in chosen]))
        error = autoencoder(pictures) - pictures
        edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        errors.append(error.abs().mean().item())
        optimizer.zero_grad()
        (error.abs().mean() + EDGE_WEIGHT * edges).backward()
        optimizer.step()
    print(f"{kind}: {len(errors)} steps, mean error {np.mean(errors[-50:]):.4f}", flush=True)
    return autoencoder.eval()


def with_autoencoded(faces: Sequence[PreparedFaces], folder: Path, seed: int) -> list[PreparedFaces]:
    """``faces`` with their ``coded`` set, each by one of the autoencoders of ``folder``."""
    rng = np.random.default_rng(seed)
    autoencoders = [load_autoencoder(kind, folder) for kind in KINDS]
    return [replace(one, coded=_coded(one.pixels, autoencoders[rng.integers(len(KINDS))])) for one in faces]


def load_autoencoder(kind: Kind, folder: Path) -> FaceAutoencoder:
    """A trained one, ready to be used. Raises FileNotFoundError."""
    autoencoder = FaceAutoencoder(kind).to(memory_format=torch.channels_last)
    load_weights(autoencoder, _file(folder, kind))
    return autoencoder.eval()


def _file(folder: Path, kind: Kind) -> Path:
    return folder / f"autoencoder_{kind.enlarge}.safetensors"


def _coded(pairs: np.ndarray, autoencoder: FaceAutoencoder) -> np.ndarray:
    pictures = as_pictures(pairs.reshape(-1, *pairs.shape[2:]))
    with torch.inference_mode():
        coded = torch.cat([autoencoder(some) for some in pictures.split(PICTURES_AT_ONCE)])
    return as_pixels(coded).reshape(pairs.shape)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train the autoencoders of faces.")
    parser.add_argument("--data", type=Path, required=True, help="folder of clips")
    parser.add_argument("--cache", type=Path, default=Path("build/cache"))
    parser.add_argument("--run", type=Path, default=Path("build/run"), help="where they are kept")
    parser.add_argument("--minutes", type=float, default=3.0, help="wall time for each")
    arguments = parser.parse_args()
    arguments.run.mkdir(parents=True, exist_ok=True)
    real = load_faces([c for c in split_clips(list_clips(arguments.data))["train"] if not c.fake], arguments.cache)
    for kind in KINDS:
        save_weights(train(kind, real, arguments.minutes), _file(arguments.run, kind))
