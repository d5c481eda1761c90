"""Small generators of moving portraits, of mouths only, so that a detector sees what such generators leave.

A picture of a person and the motion of another picture in; the former, moved as the latter, out. As in generators of
whole portraits that animate a still by a short code of its motion (first-order motion model, Siarohin et al. 2019;
latent image animator, Wang et al. 2022), features of the still are moved by a dense flow and painted by a decoder,
which a critic keeps sharp. Trained from real clips only: both pictures are of one clip, so the answer is known. Run:
``python -m model.training.reenactor --data DIR [--minutes N]``.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter1d
from torch import Tensor, nn

from model.crops import CROP_SIZE
from model.training import adversary
from model.training.autoencoder import enlarged
from model.training.batches import CORPUS_POWER
from model.training.clips import list_clips, split_clips
from model.training.generator import PICTURES_AT_ONCE, as_pictures, as_pixels, conv
from model.training.prepare import PreparedClip, load_prepared
from model.weights import load_weights, save_weights


@dataclass(frozen=True, slots=True)
class Kind:
    """``code``: numbers that say how a mouth moves. ``moved``: how many levels of features, coarse ones first, are
    moved by the flow; what lies beyond is painted by the decoder. ``enlarge``: how the way back up is made."""

    enlarge: str
    moved: int
    code: int


KINDS = (Kind("nearest", 1, 16), Kind("bilinear", 3, 20), Kind("transposed", 2, 12))
WIDTHS = (48, 96, 160)
"""Channels at 96 x 96, 48 x 48 and 24 x 24."""

FARTHEST = 0.5
"""Of half a crop: as far as a feature is moved."""

MOUTHS_PER_STEP = 32
PEAK_RATE = 5e-4


class MouthReenactor(nn.Module):
    """``forward(still, motion)``: both (N, 3, 96, 96) in [0, 1]; the still, moved as the mouth of ``motion``."""

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        fine, middle, coarse = WIDTHS
        self.moved = kind.moved
        self.see = nn.ModuleList([conv(3, fine), conv(fine, middle, 2), conv(middle, coarse, 2)])
        self.read = nn.Sequential(
            conv(3, fine, 2), conv(fine, middle, 2), conv(middle, 96, 2), conv(96, 96, 2),
            nn.Flatten(), nn.Linear(96 * (CROP_SIZE // 16) ** 2, kind.code),
        )  # fmt: skip
        self.plan = Told(coarse, 2 * kind.code)
        self.flow = nn.Sequential(conv(coarse, middle), nn.Conv2d(middle, 3, 3, padding=1))
        self.paint = nn.ModuleList(Told(width, kind.code) for width in (coarse, middle, fine))
        self.enlarge = nn.ModuleList(enlarged(kind.enlarge, *pair) for pair in ((coarse, middle), (middle, fine)))
        self.finish = nn.Conv2d(fine, 3, 3, padding=1)

    def forward(self, still: Tensor, motion: Tensor) -> Tensor:
        return self.moved_by(still, self.read(motion))

    def moved_by(self, still: Tensor, code: Tensor) -> Tensor:
        """The same, from what ``read`` makes of ``motion``: (N, code)."""
        levels = [still]
        for layer in self.see:
            levels.append(layer(levels[-1]))
        _, fine, middle, coarse = levels
        planned = self.flow(self.plan(coarse, torch.cat([self.read(still), code], 1))).float()
        flow, shown = FARTHEST * planned[:, :2].tanh(), planned[:, 2:].sigmoid()
        x = self.paint[0](_moved(coarse, flow, shown), code)
        for number, (level, enlarge, paint) in enumerate(zip((middle, fine), self.enlarge, self.paint[1:]), 2):
            x = enlarge(x)
            x = x + _moved(level, flow, shown) if number <= self.moved else x
            x = paint(x, code)
        with torch.autocast(x.device.type, enabled=False):
            return self.finish(x.float()).sigmoid()


class Told(nn.Module):
    """Two convolutions, between which a code scales and shifts every channel (FiLM, Perez et al. 2018)."""

    def __init__(self, channels: int, code: int) -> None:
        super().__init__()
        self.first, self.second = conv(channels, channels), conv(channels, channels)
        self.film = nn.Linear(code, 2 * channels)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        scale, shift = self.film(code)[:, :, None, None].chunk(2, 1)
        return self.second(self.first(x) * (1 + scale) + shift)


def _moved(features: Tensor, flow: Tensor, shown: Tensor) -> Tensor:
    """Features (N, C, H, W), each place from where ``flow`` (N, 2, 24, 24) says, as much as ``shown`` says."""
    size = features.shape[-2:]
    flow, shown = (F.interpolate(x, size, mode="bilinear", align_corners=False) for x in (flow, shown))
    at = F.affine_grid(torch.eye(2, 3, device=flow.device).expand(len(flow), 2, 3), list(features.shape), False)
    places = at + flow.permute(0, 2, 3, 1)
    moved = F.grid_sample(features.float(), places, padding_mode="border", align_corners=False)
    return (moved * shown).to(features.dtype)


class PairSampler:
    """Draws two pictures of a clip: large corpora more often, but not as much as they are larger.

    ``clips``: (T, 96, 96, 3) uint8 each, of ``corpora``. The pictures are kept on ``device``.
    """

    def __init__(self, clips: Sequence[np.ndarray], corpora: Sequence[str], device: torch.device, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._pictures = torch.from_numpy(np.concatenate(clips)).to(device)
        self._lengths = np.array([len(crops) for crops in clips])
        self._begins = self._lengths.cumsum() - self._lengths
        frames_of: Counter[str] = Counter()
        for corpus, length in zip(corpora, self._lengths):
            frames_of[corpus] += int(length)
        chance = np.array([n * frames_of[corpus] ** (CORPUS_POWER - 1) for corpus, n in zip(corpora, self._lengths)])
        self._chance = chance / chance.sum()

    def draw(self, size: int) -> tuple[Tensor, Tensor]:
        """Two of (size, 3, 96, 96) in [0, 1], row by row of one clip, mirrored or not."""
        clip = self._rng.choice(len(self._lengths), size, p=self._chance)
        mirrored = torch.from_numpy(self._rng.random(size) < 0.5).to(self._pictures.device)[:, None, None, None]
        pair = []
        for _ in range(2):
            at = self._begins[clip] + (self._rng.random(size) * self._lengths[clip]).astype(int)
            chosen = self._pictures[torch.from_numpy(at).to(self._pictures.device)].permute(0, 3, 1, 2).float() / 255
            pair.append(torch.where(mirrored, chosen.flip(-1), chosen))
        return pair[0], pair[1]


def train(kind: Kind, pairs: PairSampler, minutes: float, device: torch.device) -> MouthReenactor:
    """A reenactor trained for ``minutes`` of wall time; prints the mean error of the last steps."""
    torch.manual_seed(0)
    reenactor = MouthReenactor(kind).to(device, memory_format=torch.channels_last)

    def paint() -> tuple[Tensor, Tensor]:
        still, real = pairs.draw(MOUTHS_PER_STEP)
        with torch.autocast(device.type, torch.bfloat16):
            return reenactor(still, real), real

    errors = adversary.train(reenactor, paint, minutes, PEAK_RATE)
    print(f"{kind}: {len(errors)} steps, mean error {np.mean(errors[-50:]):.4f}", flush=True)
    return reenactor.eval()


def load_reenactor(kind: Kind, folder: Path) -> MouthReenactor:
    """A trained one, ready to be used. Raises FileNotFoundError."""
    reenactor = MouthReenactor(kind).to(memory_format=torch.channels_last)
    load_weights(reenactor, weights_file(folder, kind))
    return reenactor.eval()


def weights_file(folder: Path, kind: Kind) -> Path:
    """Where a kind is kept."""
    return folder / f"reenactor_{kind.enlarge}.safetensors"


def reenacted_mouths(
    reenactor: MouthReenactor, crops: np.ndarray, still: np.ndarray, smooth_frames: float
) -> np.ndarray:
    """``still`` (96, 96, 3) moved as (T, 96, 96, 3) uint8 crops, their motion smoothed over time by a Gaussian."""
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        code = torch.cat([reenactor.read(some).float() for some in as_pictures(crops).split(PICTURES_AT_ONCE)]).numpy()
        code = gaussian_filter1d(code, smooth_frames, axis=0, mode="nearest") if smooth_frames > 0.2 else code
        shown = as_pictures(still[None])
        codes = torch.from_numpy(code).split(PICTURES_AT_ONCE)
        return as_pixels(torch.cat([reenactor.moved_by(shown.expand(len(c), -1, -1, -1), c) for c in codes]))


def pairs_of(clips: Sequence[PreparedClip], device: torch.device) -> PairSampler:
    """Of the visible mouths of ``clips``."""
    return PairSampler([clip.crops[clip.visible] for clip in clips], [clip.clip.corpus for clip in clips], device, 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train the generators of moving mouths.")
    parser.add_argument("--data", type=Path, required=True, help="folder of clips")
    parser.add_argument("--cache", type=Path, default=Path("build/cache"))
    parser.add_argument("--run", type=Path, default=Path("build/run"), help="where they are kept")
    parser.add_argument("--minutes", type=float, default=9.0, help="wall time for each")
    arguments = parser.parse_args()
    arguments.run.mkdir(parents=True, exist_ok=True)
    real = load_prepared([c for c in split_clips(list_clips(arguments.data))["train"] if not c.fake], arguments.cache)
    place = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pictures = pairs_of(real, place)
    for kind in KINDS:
        save_weights(train(kind, pictures, arguments.minutes, place), weights_file(arguments.run, kind))
