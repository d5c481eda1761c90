"""Train a detector. Resumable: interrupt it and run the same command again.

Run: ``python -m model.training.train --data DIR [--detector lipsync|seed] [--minutes N]``.
"""

import argparse
import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from model.detector import LipSyncDetector
from model.media import SAMPLES_PER_FRAME
from model.seed_detector import SeedLipSyncDetector
from model.training.accuracy import sync_accuracy
from model.training.batches import Batch, Sampler, grey_and_small
from model.training.clips import list_clips, split_clips
from model.training.offsets import with_known_offsets
from model.training.prepare import PreparedClip, load_prepared, prepare
from model.weights import load_weights, save_weights, seal

FRAMES_PER_STEP = 560
LENGTHS = (20, 28, 44, 60)
"""Stretches of this many frames, by turns. Long ones have more distant negatives, short ones more clips."""

SOFT_TARGET = (0.1, 0.8, 0.1)
"""An instant is mostly itself and a little its neighbours: labels are not exact to a frame."""

PRIOR = (0.04, 0.16, 0.6, 0.16, 0.04)
"""How likely a clip's sound is 2 or 1 frames early, in time, 1 or 2 frames late, before looking."""

TRUST = 8.0
"""How many independent pictures' worth of evidence a stretch gives about its offset."""

WINDOW = 5
PEAK_RATE = {"lipsync": 2e-3, "seed": 5e-4}
START_SHARE = 0.6
"""Of the peak rate, when training goes on from weights."""

WARM_UP = 0.03
EMA_DECAY = 0.998


PARTS = ("detector", "loss", "averaged", "optimizer")


@dataclass(slots=True)
class Run:
    """Everything that a resumed training needs."""

    detector: nn.Module
    loss: nn.Module
    averaged: AveragedModel
    optimizer: torch.optim.Optimizer
    step: int = 0
    minutes: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Write all of it in one go, so that an interrupt never leaves half a file."""
        state: dict[str, object] = {name: getattr(self, name).state_dict() for name in PARTS}
        state |= {"step": self.step, "minutes": self.minutes, "history": self.history}
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, path.with_suffix(".partial"))
        path.with_suffix(".partial").rename(path)

    def restore(self, path: Path) -> None:
        """Go on where ``path`` was written."""
        state = torch.load(path, weights_only=True, map_location="cpu")
        for name in PARTS:
            getattr(self, name).load_state_dict(state[name])
        self.step, self.minutes, self.history = state["step"], state["minutes"], state["history"]

    def learn(self, loss: Tensor, steepest: float = 5.0) -> float:
        """One step of the optimizer, its gradient as long as ``steepest`` at most. Returns the loss."""
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.detector.parameters(), steepest)
        self.optimizer.step()
        self.averaged.update_parameters(self.detector)
        self.step += 1
        return loss.item()


class ContrastiveLoss(nn.Module):
    """InfoNCE of instants within and across clips, of windows within a clip, and of the decision.

    Its own scale for windows is trained with the detector and left behind with it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_window_scale = nn.Parameter(torch.tensor(3.0))

    def forward(self, detector: LipSyncDetector, batch: Batch) -> Tensor:
        with torch.autocast(batch.mouths.device.type, torch.bfloat16):
            video, audio = detector.encode_video(batch.mouths), detector.encode_audio(batch.sounds)
        cosine = torch.einsum("btd,csd->btcs", video, audio)
        own = cosine.diagonal(dim1=0, dim2=2).permute(2, 0, 1)
        target = _aligned(own.detach() * detector.log_scale.detach().exp(), batch)
        weight = batch.weight * (target.sum(2) > 0.99)
        instants = _instant_loss(cosine * detector.log_scale.exp(), target, weight)
        windows = _window_loss(own * self.log_window_scale.exp(), target, weight)
        return instants + windows + 0.3 * _decision_loss(detector, video.detach(), audio.detach(), batch)


def _aligned(logits: Tensor, batch: Batch) -> Tensor:
    """(B, T, S): probability that sound s of a clip belongs to picture t of it.

    Real files are muxed a frame or two off. Each clip's own offset is taken as unknown, with `PRIOR`, and
    inferred from how well its pictures and sounds fit at each (an expectation step, as in Dempster et al.
    1977), so that a file which is off does not teach what is wrong. ``logits`` (B, T, S): similarities.
    """
    reach = len(PRIOR) // 2
    chance = F.log_softmax(logits, 2)
    candidates = torch.stack([_same_instant(batch, late) for late in range(-reach, reach + 1)], 1)
    weight = batch.weight[:, None] * candidates.sum(3)
    fit = ((candidates * chance[:, None]).sum(3) * weight).sum(2) / (weight.sum(2) + 1e-6)
    belief = torch.softmax(TRUST * fit + torch.tensor(PRIOR, device=fit.device).log(), 1)
    return (belief[:, :, None, None] * candidates).sum(1)


def _same_instant(batch: Batch, late: int) -> Tensor:
    """(B, T, S): 1 where sound s of a clip belongs to picture t of it, if its sound is late by that many frames."""
    frames = torch.arange(batch.mouths.shape[1], device=batch.lag.device)
    return (frames[None, :, None] + late == frames[None, None, :] + batch.lag[:, None, None]).float()


def _instant_loss(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    before, same, after = SOFT_TARGET
    soft = same * target + before * F.pad(target, (0, 1))[:, :, 1:] + after * F.pad(target, (1, 0))[:, :, :-1]
    size, frames = logits.shape[:2]
    full = torch.zeros_like(logits)
    index = torch.arange(size, device=logits.device)
    full[index, :, index, :] = soft
    full, flat = full.view(size * frames, -1), logits.reshape(size * frames, -1)
    by_video = -(F.log_softmax(flat, 1) * full).sum(1)
    by_audio = -(F.log_softmax(flat, 0) * full).sum(1)
    weight = weight.flatten()
    return ((by_video + by_audio) * weight).sum() / (2 * weight.sum() + 1e-6)


def _window_loss(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    def mean_along_time(x: Tensor) -> Tensor:
        length = x.shape[1] - WINDOW + 1
        return torch.stack([x[:, i : i + length, i : i + length] for i in range(WINDOW)]).mean(0)

    logits, target = mean_along_time(logits), mean_along_time(target)
    weight = weight.unfold(1, WINDOW, 1).mean(2) * (target.sum(2) > 0.95)
    loss = -(F.log_softmax(logits, 2) * target).sum(2)
    return (loss * weight).sum() / (weight.sum() + 1e-6)


def _decision_loss(detector: LipSyncDetector, video: Tensor, audio: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy of the two logits on windows in sync, shifted, and with another clip's sound."""
    spans = _spans(batch)
    pictures = torch.stack([video[i, s.picture : s.picture + s.length] for i, s in enumerate(spans)])
    same = torch.stack([audio[i, s.sound : s.sound + s.length] for i, s in enumerate(spans)])
    shifted = torch.stack([audio[i, s.shifted : s.shifted + s.length] for i, s in enumerate(spans)])
    logits = torch.cat([detector.compare(pictures, sounds) for sounds in (same, shifted, same.roll(1, 0))])
    labels = torch.ones(len(logits), dtype=torch.long, device=logits.device)
    labels[: len(spans)] = 0
    return F.cross_entropy(logits, labels, weight=torch.tensor([2.0, 1.0], device=logits.device))


class SeedLoss(nn.Module):
    """Cross-entropy on windows in sync (one half), shifted and with another clip's sound (a quarter each)."""

    def forward(self, detector: SeedLipSyncDetector, batch: Batch) -> Tensor:
        pictures, sounds, labels = [], [], []
        for i, span in enumerate(_spans(batch)):
            out_of_sync, swapped = i % 2 == 1, i % 4 == 3
            source = (i + 1) % len(batch.mouths) if swapped else i
            begin = span.shifted if out_of_sync and not swapped else span.sound
            pictures.append(batch.mouths[i, span.picture : span.picture + span.length])
            sounds.append(
                batch.sounds[source, :, begin * SAMPLES_PER_FRAME : (begin + span.length) * SAMPLES_PER_FRAME]
            )
            labels.append(int(out_of_sync))
        with torch.autocast(batch.mouths.device.type, torch.bfloat16):
            logits = detector(torch.stack(pictures), torch.stack(sounds)).float()
        return F.cross_entropy(logits, torch.tensor(labels, device=logits.device))


@dataclass(frozen=True, slots=True)
class _Span:
    """Where a window begins among the pictures, in the sound, and in the sound 3 to 6 frames off."""

    picture: int
    sound: int
    shifted: int
    length: int


def _spans(batch: Batch) -> list[_Span]:
    frames = batch.mouths.shape[1]
    length = random.randint(5, frames - 12)
    last = frames - length
    spans = []
    for lag in batch.lag.tolist():
        picture = random.randint(max(0, lag), min(last, last + lag))
        shift = random.choice((-1, 1)) * random.randint(3, 6)
        sound = picture - lag
        shifted = sound + shift if 0 <= sound + shift <= last else sound - shift
        spans.append(_Span(picture, sound, shifted, length))
    return spans


def learning_rate(progress: float, peak: float) -> float:
    """Linear warm-up, then a cosine to a hundredth. ``progress`` in [0, 1]."""
    if progress < WARM_UP:
        return peak * max(progress, 1e-3) / WARM_UP
    cosine = torch.tensor((progress - WARM_UP) / (1 - WARM_UP) * torch.pi).cos().item()
    return peak * (0.01 + 0.99 * (0.5 + 0.5 * cosine))


def batches(sampler: Sampler) -> Iterator[Batch]:
    """Endless, their lengths by turns."""
    while True:
        for length in LENGTHS:
            yield sampler.draw(FRAMES_PER_STEP // length, length)


def new_run(name: str, device: torch.device, start: Path | None = None) -> Run:
    """A detector by name, untrained or with the weights ``start``, with its loss and its optimizer."""
    torch.manual_seed(0)
    detector: nn.Module = LipSyncDetector() if name == "lipsync" else SeedLipSyncDetector()
    if start:
        load_weights(detector, start)
    loss: nn.Module = ContrastiveLoss() if name == "lipsync" else SeedLoss()
    detector.to(device, memory_format=torch.channels_last)
    loss.to(device)
    averaged = AveragedModel(detector, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY), use_buffers=True)
    optimizer = torch.optim.AdamW([*detector.parameters(), *loss.parameters()], weight_decay=0.02)
    return Run(detector, loss, averaged, optimizer)


def train(
    name: str, clips: list[PreparedClip], held_out: list[PreparedClip], minutes: float, checkpoint: Path, weights: Path,
    start: Path | None = None,
) -> None:  # fmt: skip
    """Train detector ``name`` for ``minutes`` of wall time in all, whatever the number of interrupts.

    ``start``: weights to begin with instead of none.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    run = new_run(name, device, start)
    if checkpoint.exists():
        run.restore(checkpoint)
        print(f"resumed at step {run.step}, {run.minutes:.1f} min")
    sampler = Sampler([grey_and_small(clip) for clip in clips] if name == "lipsync" else clips, seed=run.step)
    started, reported, losses = time.monotonic(), time.monotonic(), []
    for batch in batches(sampler):
        for group in run.optimizer.param_groups:
            group["lr"] = learning_rate(run.minutes / minutes, PEAK_RATE[name] * (START_SHARE if start else 1))
        losses.append(_step(run, batch, device))
        run.minutes += (time.monotonic() - started) / 60
        started = time.monotonic()
        finished = run.minutes >= minutes
        if finished or started - reported > 240:
            _report(run, name, held_out, sum(losses) / len(losses))
            run.save(checkpoint)
            save_weights(run.averaged.module, weights)
            reported, started, losses = time.monotonic(), time.monotonic(), []
        if finished:
            break


def _step(run: Run, batch: Batch, device: torch.device) -> float:
    run.detector.train()
    batch = Batch(*(getattr(batch, name).to(device) for name in Batch.__slots__))
    return run.learn(run.loss(run.detector, batch))


def _report(run: Run, name: str, held_out: list[PreparedClip], loss: float) -> None:
    row: dict[str, float] = {"step": run.step, "minutes": round(run.minutes, 1), "loss": round(loss, 4)}
    accuracy = sync_accuracy(run.averaged.module, held_out, windows_per_clip=1 if name == "seed" else 40)
    row |= {f"accuracy_{frames}": round(float(share), 3) for frames, share in accuracy.items()}
    run.history.append(row)
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train a detector; run again to resume.")
    parser.add_argument("--data", type=Path, required=True, help="folder of clips")
    parser.add_argument("--cache", type=Path, default=Path("build/cache"))
    parser.add_argument("--detector", choices=("lipsync", "seed"), default="lipsync")
    parser.add_argument("--minutes", type=float, default=90.0)
    parser.add_argument("--run", type=Path, default=Path("build/run"), help="where the checkpoint is kept")
    parser.add_argument("--out", type=Path, default=Path("weights"))
    parser.add_argument("--start", type=Path, help="weights to begin with")
    arguments = parser.parse_args()
    prepare(arguments.data, arguments.cache, workers=2)
    sides = split_clips(clip for clip in list_clips(arguments.data) if not clip.fake)
    train(
        arguments.detector,
        with_known_offsets(load_prepared(sides["train"], arguments.cache), arguments.cache),
        load_prepared(sides["val"], arguments.cache),
        arguments.minutes,
        arguments.run / f"{arguments.detector}.pt",
        arguments.out / f"{arguments.detector}.safetensors",
        arguments.start,
    )
    seal(arguments.out)
