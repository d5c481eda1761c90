"""Sync accuracy as in Chung & Zisserman 2016: slide the sound over +-15 frames, within one frame is right.

A window of K pictures counts as right if the best of the 31 offsets is within +-1 frame of where it is
known to be. ``context`` says what may be seen: "shared", as in the service, where an embedding knows its neighbours
beyond the window, and a mouth is compared with those around it (`model.windows.fit_among_mouths`); or "strict", where
nothing outside the K pictures and, at each offset, the sound of the same length is seen.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from model.detector import CONTEXT, MAX_OFFSET, LipSyncDetector
from model.media import SAMPLES_PER_FRAME
from model.training.prepare import PreparedClip
from model.windows import fit_among_mouths

WINDOW_FRAMES = (5, 15, 25)
Context = Literal["shared", "strict"]


def sync_accuracy(detector: nn.Module, clips: Sequence[PreparedClip], windows_per_clip: int = 40) -> dict[int, float]:
    """Share of windows that are right, mean over identities, by window length in frames."""
    by_identity: dict[int, dict[str, list[np.ndarray]]] = {frames: {} for frames in WINDOW_FRAMES}
    for clip in clips:
        for frames, offsets in window_offsets(detector, clip, windows_per_clip).items():
            if len(offsets):
                by_identity[frames].setdefault(clip.clip.identity, []).append(np.abs(offsets) <= 1)
    return {
        frames: float(np.mean([np.concatenate(right).mean() for right in found.values()]))
        for frames, found in by_identity.items() if found
    }  # fmt: skip


def window_offsets(
    detector: nn.Module, clip: PreparedClip, windows_per_clip: int, context: Context = "shared"
) -> dict[int, np.ndarray]:
    """Best offset in frames of evenly spread windows of a clip, by window length; see the module's text.

    Windows are taken where the sound at every offset exists and the mouth is visible throughout.
    """
    was_training = detector.training
    detector.eval()
    with torch.inference_mode():
        if isinstance(detector, LipSyncDetector) and context == "shared":
            found = _shared(detector, clip, windows_per_clip)
        else:
            found = _strict(detector, clip, windows_per_clip)
    detector.train(was_training)
    return found


def window_starts(clip: PreparedClip, frames: int, windows: int) -> np.ndarray:
    """First frames of up to ``windows`` evenly spread windows."""
    last = len(clip.crops) - MAX_OFFSET - frames
    starts = [s for s in range(MAX_OFFSET, last + 1) if clip.visible[s : s + frames].all()]
    if len(starts) > windows:
        starts = [starts[i] for i in np.linspace(0, len(starts) - 1, windows).astype(int)]
    return np.array(starts, int)


def _embeddings(detector: LipSyncDetector, clip: PreparedClip) -> tuple[Tensor, Tensor]:
    """Video and audio embeddings of a whole clip, (T, 256) each."""
    device = next(detector.parameters()).device
    video = torch.cat([
        detector.encode_video(piece.to(device))[0, skip : skip + keep]
        for piece, skip, keep in _pieces(clip)
    ])  # fmt: skip
    return video, detector.encode_audio(sound_of(clip).to(device)[None, None])[0]


def offset_similarity(detector: LipSyncDetector, clip: PreparedClip) -> Tensor:
    """(T, 31) of a whole clip, see `LipSyncDetector.offset_similarity`; 0 where there is no sound."""
    video, audio = _embeddings(detector, clip)
    silent = audio.new_zeros(MAX_OFFSET, audio.shape[1])
    return detector.offset_similarity(video[None], torch.cat([silent, audio, silent])[None])[0]


def sound_of(clip: PreparedClip) -> Tensor:
    """(640 T,) float32 in [-1, 1]."""
    return torch.from_numpy(clip.sound)


def mouths_of(clip: PreparedClip, start: int = 0, end: int | None = None) -> Tensor:
    """(T, 3, 96, 96) float32 in [0, 1]."""
    return torch.from_numpy(clip.crops[start:end]).permute(0, 3, 1, 2).float() / 255


def _pieces(clip: PreparedClip, size: int = 250, margin: int = CONTEXT) -> Iterator[tuple[Tensor, int, int]]:
    for start in range(0, len(clip.crops), size):
        low = max(0, start - margin)
        yield mouths_of(clip, low, start + size + margin)[None], start - low, size


def _shared(detector: LipSyncDetector, clip: PreparedClip, windows: int) -> dict[int, np.ndarray]:
    if len(clip.crops) < 2 * MAX_OFFSET + 1:
        return {frames: np.zeros(0, int) for frames in WINDOW_FRAMES}
    fit = fit_among_mouths(offset_similarity(detector, clip).cpu().numpy(), clip.visible)
    total = np.concatenate([np.zeros((1, fit.shape[1])), fit.cumsum(0)])
    found = {}
    for frames in WINDOW_FRAMES:
        first = window_starts(clip, frames, windows)
        found[frames] = (total[first + frames] - total[first]).argmax(1) - MAX_OFFSET
    return found


def _strict(detector: nn.Module, clip: PreparedClip, windows: int) -> dict[int, np.ndarray]:
    sound = sound_of(clip)

    def offsets(frames: int) -> list[int]:
        starts = window_starts(clip, frames, windows).tolist()
        return [_strict_offset(detector, clip, sound, start, frames) for start in starts]

    return {frames: np.array(offsets(frames), int) for frames in WINDOW_FRAMES}


def _strict_offset(detector: nn.Module, clip: PreparedClip, sound: Tensor, start: int, frames: int) -> int:
    device = next(detector.parameters()).device
    mouths = mouths_of(clip, start, start + frames)[None].to(device)
    offsets = range(start - MAX_OFFSET, start + MAX_OFFSET + 1)
    sounds = torch.stack([sound[k * SAMPLES_PER_FRAME : (k + frames) * SAMPLES_PER_FRAME] for k in offsets])
    sounds = sounds[:, None].to(device)
    if isinstance(detector, LipSyncDetector):
        video, audio = detector.encode_video(mouths), detector.encode_audio(sounds)
        return int((video * audio).sum((1, 2)).argmax()) - MAX_OFFSET
    visual = detector.visual_encoder(mouths[0]).mean(0, keepdim=True).expand(len(sounds), -1)
    logits = detector.classifier(torch.cat([visual, detector.audio_encoder(sounds)], 1))
    return int((logits[:, 0] - logits[:, 1]).argmax()) - MAX_OFFSET
