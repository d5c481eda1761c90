"""The detector as it is served: weights loaded, TorchScript-compiled, warmed up, on one device."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from model.audio import SpeechActivity
from model.crops import CROP_SIZE
from model.detector import CONTEXT, EMBEDDING, MAX_OFFSET, LipSyncDetector
from model.faces import FaceFinder
from model.media import SAMPLES_PER_FRAME
from model.results import DetectorInfo
from model.temporal import FRAMES, TemporalDetector
from model.verdict import UNFITTED, VerdictRule, parse_rule
from model.weights import WeightsError, WeightsFolder
from model.windows import APART, over_time

WEIGHTS = Path(__file__).parent.parent / "weights"

Kind = Literal["mouths", "sound", "sequences"]

BATCH_FRAMES = 100
"""Pictures, or 40 ms pieces of sound, that go through the detector at a time, apart from their context."""


class Embedder:
    """Embeds a sequence that comes piece by piece, as if it came at once, in bounded memory.

    It works in batches that overlap by what an embedding can depend on; one is computed by ``aside`` while the next
    is gathered.
    """

    def __init__(self, embed: Callable[[list[np.ndarray]], np.ndarray], aside: Executor) -> None:
        self._embed = embed
        self._aside = aside
        self._waiting: list[np.ndarray] = []
        self._context = 0
        self._under_way: Future[np.ndarray] | None = None
        self._done: list[np.ndarray] = []

    def push(self, item: np.ndarray) -> None:
        """Add the next item of the sequence."""
        self._waiting.append(item)
        if len(self._waiting) == self._context + BATCH_FRAMES + CONTEXT:
            end = self._context + BATCH_FRAMES
            self._begin(self._waiting, end)
            self._waiting = self._waiting[end - CONTEXT :]
            self._context = CONTEXT

    def take(self) -> np.ndarray:
        """Embeddings (N, 256) float32 that are ready, of the items after those of the last call."""
        if self._under_way is not None and self._under_way.done():
            self._end()
        ready, self._done = self._done, []
        return np.concatenate([np.zeros((0, EMBEDDING), np.float32), *ready])

    def finish(self) -> np.ndarray:
        """Embeddings (N, 256) float32 of all items that are not taken yet."""
        if len(self._waiting) > self._context:
            self._begin(self._waiting, len(self._waiting))
        self._end()
        return self.take()

    def _begin(self, items: list[np.ndarray], end: int) -> None:
        self._end()
        kept = slice(self._context, end)
        self._under_way = self._aside.submit(lambda: self._embed(items)[kept])

    def _end(self) -> None:
        if self._under_way is not None:
            self._done.append(self._under_way.result())
            self._under_way = None


class RenderingMeter:
    """Says how rendered successive crops of one face look, `FRAMES` at a time; only the last ones are kept.

    ``judge``: of a sequence, (24, 96, 96) uint8 grey, the logit (1,) in time.
    """

    def __init__(self, judge: Callable[[np.ndarray], Future[np.ndarray]]) -> None:
        self._judge = judge
        self._last: deque[np.ndarray] = deque(maxlen=FRAMES)
        self._count = 0
        self._middles: list[float] = []
        self._logits: list[Future[np.ndarray]] = []

    def push(self, crop: np.ndarray) -> None:
        """Add the next crop, (96, 96) uint8 grey."""
        self._last.append(crop)
        self._count += 1
        if self._count % FRAMES == 0:
            self._look()

    def finish(self) -> None:
        """Judge the last crops too, with some before them; fewer than a sequence end with the last one repeated."""
        if self._count % FRAMES:
            self._look()

    def measured(self, wait: bool = False) -> np.ndarray:
        """(T,) float of all crops, joined by lines between the middles of sequences; nan where nothing is known.

        ``wait``: also for those that are not judged yet.
        """
        known = [logit.result() for logit in self._logits if wait or logit.done()]
        values = np.concatenate([np.zeros(0, np.float32), *known])
        return over_time(np.array(self._middles[: len(values)]), values, self._count)

    def _look(self) -> None:
        sequence = [*self._last, *[self._last[-1]] * (FRAMES - len(self._last))]
        self._middles.append(self._count - len(self._last) + (FRAMES - 1) / 2)
        self._logits.append(self._judge(np.stack(sequence)))


Run = Callable[[Kind, np.ndarray], np.ndarray]
"""Puts a batch through the network of a kind, see `Networks`."""


class Networks:
    """The networks on one device, compiled. Everything they take and return is batched along the first axis.

    Called with "mouths", (B, T, 96, 96) uint8 grey of successive frames, and "sound", (B, 640 T) float32 at 16 kHz,
    they return embeddings (B, T, 256) float32; with "sequences", (B, 24, 96, 96) uint8 grey, logits (B,) float32 of
    how rendered each looks, see `TemporalDetector`.
    """

    def __init__(self, network: LipSyncDetector, temporal: TemporalDetector, device: str) -> None:
        self._device = torch.device(device)
        self._half = halves(self._device)
        self._network = torch.jit.freeze(
            torch.jit.script(network.to(self._device, memory_format=torch.channels_last).eval()),
            preserved_attrs=["encode_video", "encode_audio"],
        )
        self._temporal = torch.jit.freeze(
            torch.jit.script(temporal.to(self._device, memory_format=torch.channels_last).eval()),
            preserved_attrs=["changes_of", "judge"],
        )
        self._networks = {"mouths": self._embed_mouths, "sound": self._embed_sound, "sequences": self._look_at}
        self.scale = network.log_scale.exp().item()

    @torch.inference_mode()
    def __call__(self, kind: Kind, items: np.ndarray) -> np.ndarray:
        return self._networks[kind](self._there(items)).float().cpu().numpy()

    def warm_up(self) -> None:
        """Run everything once, so that the first request does not pay for compilation."""
        for frames in (1, BATCH_FRAMES + 2 * CONTEXT, BATCH_FRAMES + 2 * CONTEXT):
            self("mouths", np.zeros((1, frames, CROP_SIZE, CROP_SIZE), np.uint8))
            self("sound", np.zeros((1, frames * SAMPLES_PER_FRAME), np.float32))
        for _ in range(3):
            self("sequences", np.zeros((1, FRAMES, CROP_SIZE, CROP_SIZE), np.uint8))

    def _there(self, items: np.ndarray) -> Tensor:
        """On the device; a GPU fetches them by itself, out of memory that is not moved meanwhile."""
        here = torch.from_numpy(items)
        return here.pin_memory().to(self._device, non_blocking=True) if self._device.type == "cuda" else here

    def _embed_mouths(self, crops: Tensor) -> Tensor:
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._half):
            return self._network.encode_video(crops[:, :, None].float() / 255)

    def _embed_sound(self, sound: Tensor) -> Tensor:
        return self._network.encode_audio(sound[:, None])

    def _look_at(self, sequences: Tensor) -> Tensor:
        changes = self._temporal.changes_of(sequences)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._half):
            return self._temporal.judge(changes)


class Detector:
    """Compares mouths with sound, and looks at how they move. One instance serves all threads of a process.

    ``run`` puts batches through the networks, here or in another process; it is called from one thread, beside
    those that gather the next batches. ``scale``: of similarities.
    """

    def __init__(self, info: DetectorInfo, rule: VerdictRule, scale: float, run: Run) -> None:
        self.info = info
        self.rule = rule
        self.scale = scale
        self.run = run
        self._aside = ThreadPoolExecutor(1, thread_name_prefix="detector")
        self._speech = SpeechActivity()
        self._finders: deque[FaceFinder] = deque()

    @contextmanager
    def face_finder(self, max_faces: int) -> Iterator[FaceFinder]:
        """For one video; it is kept for the next one, unless the ``with`` body fails."""
        try:
            finder = self._finders.pop()
        except IndexError:
            finder = FaceFinder()
        finder.max_faces = max_faces
        try:
            yield finder
        except BaseException:
            finder.close()
            raise
        self._finders.append(finder)

    def mouth_embedder(self) -> Embedder:
        """For crops, (96, 96) uint8 grey each, of one face in successive frames."""
        return Embedder(lambda crops: self.run("mouths", np.stack(crops)[None])[0], self._aside)

    def sound_embedder(self) -> Embedder:
        """For successive 40 ms of sound, (640,) float32 each."""
        return Embedder(lambda pieces: self.run("sound", np.concatenate(pieces)[None])[0], self._aside)

    def rendering_meter(self) -> RenderingMeter:
        """For crops, (96, 96) uint8 grey each, of one face in successive frames."""
        return RenderingMeter(lambda sequence: self._aside.submit(self.run, "sequences", sequence[None]))

    def settle(self) -> None:
        """Wait until nothing that was begun is under way, as after an analysis that failed."""
        self._aside.submit(int).result()

    def speech_per_frame(self, pieces: Iterable[np.ndarray]) -> np.ndarray:
        """Probability of speech for every 40 ms, see `SpeechActivity.per_frame`."""
        return self._speech.per_frame(pieces)

    def offset_similarity(self, video: np.ndarray, audio: np.ndarray) -> np.ndarray:
        """(T, 31): each of T pictures with the sound 15 frames before it to 15 after it.

        ``video`` (T, 256); ``audio`` (T + 30, 256). See `LipSyncDetector.offset_similarity`.
        """
        around = np.lib.stride_tricks.sliding_window_view(audio, 2 * MAX_OFFSET + 1, axis=0)
        return np.matmul(video[:, None], around)[:, 0] * np.float32(self.scale)

    def change(self, embeddings: np.ndarray) -> np.ndarray:
        """(T,): by how much less similar each embedding, (T, 256), is to that `APART` frames before than to itself.

        The first ones, before which there is none, are as the one after them.
        """
        if len(embeddings) <= APART:
            return np.zeros(len(embeddings), np.float32)
        now, before = embeddings[APART:], embeddings[:-APART]
        changed = (now * (now - before)).sum(1) * np.float32(self.scale)
        return np.concatenate([np.full(APART, changed[0]), changed])


def halves(device: torch.device) -> bool:
    """Whether bfloat16 is faster there than float32: on GPUs, and on processors with instructions for it.

    Embeddings of mouths then differ from those in float32 by less than 0.01, of a length of up to 2; logits of how
    rendered mouths look by less than 0.02.
    """
    return device.type == "cuda" or torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def rule_name(left_out: str | None = None) -> str:
    """The file of the verdict rule: the one that is served, or one fitted without a family of generators."""
    return f"verdict_without_{left_out}.json" if left_out else "verdict.json"


def load_detector(
    device: str | None = None, weights: Path = WEIGHTS, left_out: str | None = None, fitted: bool = True
) -> Detector:
    """Load the default detector and its verdict rule, ready to serve.

    ``device``: as PyTorch names it; CUDA when there is one, else CPU, when None. ``left_out``: with the rule that
    was fitted without that family of generators. ``fitted`` False: with no rule. Raises WeightsError when a file is
    missing, or not what the folder's manifest says.
    """
    folder = WeightsFolder.open(weights)
    network, temporal = LipSyncDetector(), TemporalDetector()
    folder.fill(network, "lipsync.safetensors")
    folder.fill(temporal, "temporal.safetensors")
    loaded, rule = ["lipsync.safetensors", "temporal.safetensors"], UNFITTED
    if fitted:
        loaded.append(rule_name(left_out))
        rule = _rule(folder, rule_name(left_out))
    info = DetectorInfo(
        name="LipSyncDetector",
        version=folder.version,
        device=device or ("cuda" if torch.cuda.is_available() else "cpu"),
        weights={name: folder.digest(name) for name in loaded},
        thresholds={"real_below": rule.real_below, "fake_above": rule.fake_above},
    )
    networks = Networks(network, temporal, info.device)
    networks.warm_up()
    return Detector(info, rule, networks.scale, networks)


def _rule(folder: WeightsFolder, name: str) -> VerdictRule:
    try:
        return parse_rule(folder.read(name))
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{folder.path / name}: it is no verdict rule") from error
