"""A small generator of mouths from a voice, so that a detector of generated content has something to learn from.

After Wav2Lip (Prajwal et al., "A lip sync expert is all you need", 2020): the lower half of a face is hidden and
painted anew from what is left of the picture, another picture of the same person, and the voice, while a frozen
detector of lip sync says whether mouth and voice fit. Trained from real clips only.

Run: ``python -m model.training.generator --data DIR [--minutes N]``. Interrupt it and run it again to resume.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.crops import CROP_SIZE
from model.detector import EMBEDDING, LipSyncDetector
from model.engine import WEIGHTS
from model.training.accuracy import mouths_of, sound_of
from model.training.batches import CORPUS_POWER
from model.training.clips import list_clips, split_clips
from model.training.offsets import with_known_offsets
from model.training.prepare import PreparedClip, load_prepared, prepare
from model.training.train import learning_rate
from model.weights import load_weights, save_weights

HOLE_TOP, HOLE_LEFT, HOLE_RIGHT, HOLE_EDGE = 24, 8, 88, 6
"""Rows and columns of a crop between which it is hidden, down to the bottom; the edge is so many pixels soft."""

CHANNELS = (32, 64, 96, 160, 256)
"""At 48 x 48, 24 x 24, 12 x 12, 6 x 6 and 3 x 3."""

CLIPS_PER_STEP, STRETCH = 8, 6
FAR = 10
"""Frames between a stretch and its reference, at least, where the clip is long enough."""

PEAK_RATE = 1e-3
EDGE_WEIGHT, SYNC_WEIGHT = 1.0, 0.04
SYNC_FROM, SYNC_FULL = 0.25, 0.4
"""Share of the training after which sync begins to count, and counts in full."""

CHECKPOINT_MINUTES = 2.0
HELD_OUT_FRAMES = 25
PICTURES_AT_ONCE = 64


def _soft_hole() -> Tensor:
    at = torch.arange(CROP_SIZE, dtype=torch.float32)
    rows = ((at - HOLE_TOP + 1) / HOLE_EDGE).clamp(0, 1)
    columns = ((torch.minimum(at - HOLE_LEFT, HOLE_RIGHT - 1 - at) + 1) / HOLE_EDGE).clamp(0, 1)
    return rows[:, None] * columns


HOLE = _soft_hole()
"""(96, 96) float in [0, 1]: 1 where a crop is hidden, 0 where it is kept, soft in between."""


class MouthGenerator(nn.Module):
    """U-Net (Ronneberger et al. 2015) that paints the hidden part of a mouth crop.

    ``forward(holed, reference, voice)``: ``holed`` (N, 3, 96, 96) in [0, 1], as from `with_hole`; ``reference``
    (N, 3, 96, 96) in [0, 1], the same person at another moment; ``voice`` (N, 256), the sound of these moments as
    `LipSyncDetector.encode_audio` embeds it. Returns (N, 3, 96, 96) in [0, 1], ``holed`` with the hole filled.
    """

    def __init__(self) -> None:
        super().__init__()
        first, *widths = CHANNELS
        self.stem = conv(4 * 6, first)
        self.downs = nn.ModuleList(Down(before, after) for before, after in zip(CHANNELS, widths))
        self.hear = nn.Sequential(
            nn.Linear(EMBEDDING, EMBEDDING), nn.ReLU(), nn.Linear(EMBEDDING, CHANNELS[-1]), nn.ReLU()
        )
        self.ups = nn.ModuleList(Up(before, after) for before, after in zip(CHANNELS[:0:-1], CHANNELS[-2::-1]))
        self.paint = nn.Conv2d(first, 4 * 3, 3, padding=1)
        self.register_buffer("hole", HOLE, persistent=False)

    def forward(self, holed: Tensor, reference: Tensor, voice: Tensor) -> Tensor:
        pictures = F.pixel_unshuffle(torch.cat([holed, reference], 1), 2)
        levels = [self.stem(pictures.contiguous(memory_format=torch.channels_last))]
        for down in self.downs:
            levels.append(down(levels[-1]))
        heard = self.hear(voice * EMBEDDING**0.5)
        x = levels.pop() + heard[:, :, None, None]
        for up in self.ups:
            x = up(x, levels.pop(), heard)
        painted = F.pixel_shuffle(self.paint(x), 2).float().sigmoid()
        return holed + self.hole * painted


class Down(nn.Module):
    """Two convolutions; half the size."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(conv(before, after, stride=2), conv(after, after))

    def forward(self, x: Tensor) -> Tensor:
        return self.convs(x)


class Up(nn.Module):
    """Twice the size; what was there on the way down is added, and the voice scales and shifts every channel.

    The latter as in FiLM (Perez et al. 2018).
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(before, after, 1)
        self.first, self.second = conv(after, after), conv(after, after)
        self.film = nn.Linear(CHANNELS[-1], 2 * after)

    def forward(self, x: Tensor, skip: Tensor, heard: Tensor) -> Tensor:
        x = self.first(F.interpolate(self.narrow(x), scale_factor=2.0) + skip)
        scale, shift = self.film(heard)[:, :, None, None].chunk(2, 1)
        return self.second(x * (1 + scale) + shift)


def conv(before: int, after: int, stride: int = 1) -> nn.Sequential:
    """3 x 3 convolution, batch normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()
    )


def with_hole(mouths: Tensor) -> Tensor:
    """Mouth crops (..., 96, 96) in [0, 1], black where `HOLE` is."""
    return mouths * (1 - HOLE.to(mouths.device))


def load_generator(path: Path) -> MouthGenerator:
    """A trained generator, ready to be used. Raises FileNotFoundError, or RuntimeError when it is none."""
    generator = MouthGenerator().to(memory_format=torch.channels_last)
    load_weights(generator, path)
    return generator.eval()


def rerender_mouths(
    generator: MouthGenerator, mouths: np.ndarray, reference: np.ndarray, voice: np.ndarray
) -> np.ndarray:
    """Consecutive crops of a mouth, their hidden part painted anew to speak with ``voice``.

    ``mouths`` (T, 96, 96, 3) and ``reference`` (96, 96, 3) uint8 RGB of one person; ``voice`` (T, 256), as from
    `LipSyncDetector.encode_audio`, of these or of other words. Returns (T, 96, 96, 3) uint8 RGB.

    Puts ``generator`` in eval mode.
    """
    device = next(generator.parameters()).device
    pictures = as_pictures(mouths).to(device)
    shown = as_pictures(reference[None]).to(device)
    heard = torch.from_numpy(voice).to(device)
    generator.eval()
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16):
        painted = torch.cat([
            generator(with_hole(some), shown.expand_as(some), words)
            for some, words in zip(pictures.split(PICTURES_AT_ONCE), heard.split(PICTURES_AT_ONCE))
        ])  # fmt: skip
    return as_pixels(painted)


def voice_of(detector: LipSyncDetector, clip: PreparedClip) -> Tensor:
    """(T, 256): for every picture of a clip, the embedding of the sound that belongs to it."""
    device = next(detector.parameters()).device
    with torch.inference_mode():
        voice = detector.encode_audio(sound_of(clip).to(device)[None, None])[0].cpu()
    return voice[(torch.arange(len(voice)) + clip.sound_late).clamp(0, len(voice) - 1)]


@dataclass(frozen=True, slots=True)
class Stretches:
    """``mouths`` (B, T, 3, 96, 96) in [0, 1], consecutive; ``reference`` (B, 3, 96, 96); ``voice`` (B, T, 256)."""

    mouths: Tensor
    reference: Tensor
    voice: Tensor


class StretchSampler:
    """Draws stretches of visible mouths, each with a picture from elsewhere in its clip and the voice.

    ``voices``: one (T, 256) for each of ``clips``, as from `voice_of`. ``seed`` makes them the same every time.
    Clips without ``frames`` visible mouths in a row are left out.
    """

    def __init__(self, clips: Sequence[PreparedClip], voices: Sequence[Tensor], frames: int, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._frames = frames
        usable = [(clip, voice, starts) for clip, voice in zip(clips, voices) if len(starts := _starts(clip, frames))]
        self._clips, self._voices, self._starts = zip(*usable)
        frames_of: Counter[str] = Counter()
        for clip in self._clips:
            frames_of[clip.clip.corpus] += len(clip.crops)
        chance = np.array([len(clip.crops) * frames_of[clip.clip.corpus] ** (CORPUS_POWER - 1) for clip in self._clips])
        self._chance = chance / chance.sum()

    def draw(self, size: int) -> Stretches:
        """``size`` stretches of random clips, mirrored or not, large corpora more often but not as much."""
        chosen = self._rng.choice(len(self._clips), size, p=self._chance)
        return _stacked([self._mirrored(self._cut(i, self._rng.choice(self._starts[i]))) for i in chosen])

    def middles(self) -> Stretches:
        """The middle stretch of every clip."""
        return _stacked([self._cut(i, starts[len(starts) // 2]) for i, starts in enumerate(self._starts)])

    def _cut(self, index: int, start: int) -> Stretches:
        clip, end = self._clips[index], start + self._frames
        seen = np.flatnonzero(clip.visible)
        away = np.maximum(start - seen, seen - end + 1)
        reference = self._rng.choice(seen[away >= min(FAR, away.max())])
        return Stretches(
            mouths_of(clip, start, end), mouths_of(clip, reference, reference + 1)[0], self._voices[index][start:end]
        )

    def _mirrored(self, cut: Stretches) -> Stretches:
        if self._rng.random() < 0.5:
            return cut
        return Stretches(cut.mouths.flip(-1), cut.reference.flip(-1), cut.voice)


def _starts(clip: PreparedClip, frames: int) -> np.ndarray:
    visible = np.concatenate([[0], clip.visible.cumsum()])
    return np.flatnonzero(visible[frames:] - visible[:-frames] == frames)


def _stacked(cuts: Sequence[Stretches]) -> Stretches:
    return Stretches(*(torch.stack([getattr(cut, name) for cut in cuts]) for name in Stretches.__slots__))


def as_pictures(crops: np.ndarray) -> Tensor:
    """(N, H, W, 3) uint8 to (N, 3, H, W) float in [0, 1]."""
    return torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255


def as_pixels(pictures: Tensor) -> np.ndarray:
    """Back again."""
    return (pictures * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()


@dataclass(slots=True)
class Run:
    """Everything that a resumed training needs, and the frozen judge of lip sync."""

    generator: MouthGenerator
    optimizer: torch.optim.Optimizer
    judge: LipSyncDetector
    step: int = 0
    minutes: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Write it in one go, so that an interrupt never leaves half a file."""
        state = {name: getattr(self, name).state_dict() for name in ("generator", "optimizer")}
        state |= {"step": self.step, "minutes": self.minutes, "history": self.history}
        torch.save(state, path.with_suffix(".partial"))
        path.with_suffix(".partial").rename(path)

    def restore(self, path: Path) -> None:
        """Go on where ``path`` was written."""
        state = torch.load(path, weights_only=True, map_location="cpu")
        self.generator.load_state_dict(state["generator"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.minutes, self.history = state["step"], state["minutes"], state["history"]


def new_run(judge: LipSyncDetector) -> Run:
    """An untrained generator on the device of ``judge``, which is frozen."""
    torch.manual_seed(0)
    device = next(judge.parameters()).device
    generator = MouthGenerator().to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(generator.parameters(), PEAK_RATE, betas=(0.9, 0.99), weight_decay=0.01)
    return Run(generator, optimizer, judge.eval().requires_grad_(False))


def train(
    judge: LipSyncDetector, clips: Sequence[PreparedClip], held_out: Sequence[PreparedClip], minutes: float,
    checkpoint: Path, weights: Path,
) -> None:  # fmt: skip
    """Train a generator for ``minutes`` of wall time in all, whatever the number of interrupts."""
    started = time.monotonic()
    run = new_run(judge)
    if checkpoint.exists():
        run.restore(checkpoint)
        print(f"resumed at step {run.step}, {run.minutes:.1f} min")
    sampler = StretchSampler(clips, [voice_of(judge, clip) for clip in clips], STRETCH, seed=run.step)
    unseen = StretchSampler(held_out, [voice_of(judge, clip) for clip in held_out], HELD_OUT_FRAMES, seed=0).middles()
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    saved = run.minutes
    while run.minutes < minutes:
        _step(run, sampler.draw(CLIPS_PER_STEP), run.minutes / minutes)
        run.minutes += (time.monotonic() - started) / 60
        started = time.monotonic()
        if run.minutes >= minutes or run.minutes - saved > CHECKPOINT_MINUTES:
            _report(run, unseen)
            run.save(checkpoint)
            save_weights(run.generator, weights)
            saved = run.minutes


def _step(run: Run, batch: Stretches, progress: float) -> None:
    for group in run.optimizer.param_groups:
        group["lr"] = learning_rate(progress, PEAK_RATE)
    run.generator.train()
    batch = _on(batch, run)
    loss = painting_loss(paint(run.generator, batch), batch, run.judge, progress)
    run.optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(run.generator.parameters(), 1.0)
    run.optimizer.step()
    run.step += 1


def paint(generator: MouthGenerator, batch: Stretches) -> Tensor:
    """The stretches with their mouths generated, (B, T, 3, 96, 96) in [0, 1]."""
    mouths = batch.mouths.flatten(0, 1)
    reference = batch.reference.repeat_interleave(batch.mouths.shape[1], 0)
    with torch.autocast(mouths.device.type, torch.bfloat16):
        painted = generator(with_hole(mouths), reference, batch.voice.flatten(0, 1))
    return painted.view_as(batch.mouths)


def painting_loss(painted: Tensor, batch: Stretches, judge: LipSyncDetector, progress: float) -> Tensor:
    """L1 of pixels and of edges within the hole, and, later in training, how badly mouth and voice fit."""
    error = painted - batch.mouths
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    loss = (error.abs().mean() + EDGE_WEIGHT * edges) / HOLE.mean().item()
    ramp = min(max((progress - SYNC_FROM) / (SYNC_FULL - SYNC_FROM), 0.0), 1.0)
    if ramp > 0:
        loss = loss + ramp * SYNC_WEIGHT * (1 - in_sync(judge, painted, batch.voice))
    return loss


def in_sync(judge: LipSyncDetector, mouths: Tensor, voice: Tensor) -> Tensor:
    """Mean cosine, -1 to 1, of mouths (B, T, 3, 96, 96) in [0, 1] and voice (B, T, 256) at the same instants."""
    with torch.autocast(mouths.device.type, torch.bfloat16):
        seen = judge.encode_video(mouths)
    return F.cosine_similarity(seen.float(), voice, dim=-1).mean()


def _on(batch: Stretches, run: Run) -> Stretches:
    device = next(run.generator.parameters()).device
    return Stretches(*(getattr(batch, name).to(device) for name in Stretches.__slots__))


def _report(run: Run, unseen: Stretches) -> None:
    unseen = _on(unseen, run)
    run.generator.eval()
    with torch.inference_mode():
        painted = paint(run.generator, unseen)
        row = {
            "step": run.step,
            "minutes": round(run.minutes, 1),
            "l1": round(((painted - unseen.mouths).abs().mean() / HOLE.mean()).item(), 4),
            "sync_generated": round(in_sync(run.judge, painted, unseen.voice).item(), 3),
            "sync_real": round(in_sync(run.judge, unseen.mouths, unseen.voice).item(), 3),
        }
    run.history.append(row)
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train a generator of mouths; run again to resume.")
    parser.add_argument("--data", type=Path, required=True, help="folder of clips")
    parser.add_argument("--cache", type=Path, default=Path("build/cache"))
    parser.add_argument("--minutes", type=float, default=12.0)
    parser.add_argument("--run", type=Path, default=Path("build/run"), help="where checkpoint and generator are kept")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    prepare(arguments.data, arguments.cache, workers=2)
    sides = split_clips(clip for clip in list_clips(arguments.data) if not clip.fake)
    expert = LipSyncDetector().to("cuda" if torch.cuda.is_available() else "cpu")
    load_weights(expert, WEIGHTS / "lipsync.safetensors")
    train(
        expert.eval(),
        with_known_offsets(load_prepared(sides["train"], arguments.cache), arguments.cache),
        load_prepared(sides["val"], arguments.cache),
        arguments.minutes,
        arguments.run / "generator.pt",
        arguments.run / "generator.safetensors",
    )
