"""The default detector: two streams into one space, one embedding a picture, compared at every offset.

After SyncNet (Chung & Zisserman, "Out of time", 2016): mouth and voice of the same instant are to be near,
of other instants far. Unlike it, every 40 ms has an embedding of its own in both streams, so overlapping
windows and all offsets share one pass; and training contrasts every instant of a clip with every other
(InfoNCE, van den Oord et al. 2018), which is where fine timing comes from. An embedding is as long as it is
sure of itself, so that silence and hidden lips weigh little (probabilistic embeddings: Oh et al. 2019).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.audio import MEL_PER_FRAME, N_MELS, N_MFCC, SpeechFeatures

EMBEDDING = 256
MAX_OFFSET = 15
"""Offsets are searched over this many frames of 40 ms to either side."""

CONTEXT = 19
"""Frames to either side that an embedding can depend on, in the wider of the two streams."""

VIDEO_CHANNELS = (32, 48, 96, 160)
VIDEO_SIZE = 64
STEM_FRAMES = 5
AUDIO_CHANNELS = (32, 64, 96)


class LipSyncDetector(nn.Module):
    """Mouth crops and raw sound in; in-sync evidence out.

    ``forward(mouth_frames, audio_segment)``: ``mouth_frames`` (B, T, 3, H, W) float in [0, 1],
    ``audio_segment`` (B, 1, L) float at 16 kHz with L = 640 T. Returns (B, 2) logits: in sync, out of sync.

    ``encode_video`` and ``encode_audio`` give the embeddings, (B, T, 256) of length 0 to 2, and
    ``offset_similarity`` compares them at every offset.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = SpeechFeatures()
        self.video = VideoStream()
        self.audio = AudioStream()
        self.log_scale = nn.Parameter(torch.tensor(2.5))
        self.decision = nn.Linear(2, 1)
        self.offsets = 2 * MAX_OFFSET + 1

    def forward(self, mouth_frames: Tensor, audio_segment: Tensor) -> Tensor:
        return self.compare(self.encode_video(mouth_frames), self.encode_audio(audio_segment))

    @torch.jit.export
    def encode_video(self, mouth_frames: Tensor) -> Tensor:
        """(B, T, 3, H, W) or grey, (B, T, 1, H, W), float in [0, 1] to (B, T, 256) of length 0 to 2."""
        return self.video(mouth_frames)

    @torch.jit.export
    def encode_audio(self, audio_segment: Tensor) -> Tensor:
        """(B, 1, 640 T) float at 16 kHz to (B, T, 256) of length 0 to 2."""
        log_mel, mfcc = self.features(audio_segment[:, 0].float())
        return self.audio(log_mel, mfcc)

    @torch.jit.export
    def compare(self, video: Tensor, audio: Tensor) -> Tensor:
        """Logits (B, 2) from embeddings of the same span, (B, T, 256) each.

        Two facts of the T x T similarities decide: how alike mouth and voice are at the same instants,
        and how much more alike than at different instants of the span.
        """
        similarity = torch.bmm(video, audio.transpose(1, 2)) * self.log_scale.exp()
        same = similarity.diagonal(dim1=1, dim2=2)
        frames = torch.tensor(video.shape[1], dtype=same.dtype, device=same.device)
        contrast = same - torch.logsumexp(similarity, 2) + frames.log()
        facts = torch.stack([same.mean(1), contrast.mean(1)], 1)
        evidence = self.decision(facts) * (frames / 25.0).sqrt()
        return torch.cat([evidence / 2, -evidence / 2], 1)

    @torch.jit.export
    def offset_similarity(self, video: Tensor, audio: Tensor) -> Tensor:
        """Scaled similarity of each picture with the sound at each offset.

        ``video`` (B, T, 256); ``audio`` (B, T + 30, 256), beginning 15 frames before the pictures. Returns
        (B, T, 31); entry 15 + k compares with sound that comes k frames later, so that a peak at k > 0
        says the audio is late.
        """
        around = audio.unfold(1, self.offsets, 1)
        return torch.einsum("btd,btdk->btk", video, around) * self.log_scale.exp()


class VideoStream(nn.Module):
    """Grey mouths at 64 x 64, five at a time, through a small ResNet; then convolutions over time.

    The first convolution sees 5 frames and 6 x 6 pixels: pictures are folded to 32 x 32 with four
    channels each, and a picture's channels are joined by those of its two neighbours on either side.
    """

    def __init__(self) -> None:
        super().__init__()
        stem, *widths = VIDEO_CHANNELS
        self.size = VIDEO_SIZE
        self.stem_frames = STEM_FRAMES
        self.stem = nn.Conv2d(4 * STEM_FRAMES, stem, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(stem)
        self.blocks = nn.Sequential(*(SpatialBlock(before, after) for before, after in zip((stem, *widths), widths)))
        side = VIDEO_SIZE // 2 ** (1 + len(widths))
        self.to_frame = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(widths[-1] * side**2, EMBEDDING))
        self.time = TemporalHead()
        self.register_buffer("grey", torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1), persistent=False)

    def forward(self, mouth_frames: Tensor) -> Tensor:
        batch, frames = mouth_frames.shape[:2]
        pictures = mouth_frames.flatten(0, 1)
        grey = pictures if pictures.shape[1] == 1 else (pictures * self.grey).sum(1, keepdim=True)
        small = F.interpolate(grey, size=(self.size, self.size), mode="bilinear", antialias=True)
        level, spread = small.mean((2, 3), keepdim=True), small.flatten(2).std(2)[:, :, None, None]
        folded = F.pixel_unshuffle((small - level) / (spread + 0.05), 2).unflatten(0, (batch, frames))
        reach = self.stem_frames // 2
        around = F.pad(folded, (0, 0, 0, 0, 0, 0, reach, reach)).unfold(1, self.stem_frames, 1)
        x = around.permute(0, 1, 5, 2, 3, 4).flatten(2, 3).flatten(0, 1)
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        x = self.to_frame(self.blocks(torch.relu(self.stem_norm(x))))
        return self.time(x.unflatten(0, (batch, frames)))


class AudioStream(nn.Module):
    """2D convolutions over log-mel and 1D over MFCC, down to one vector a picture, then time."""

    def __init__(self) -> None:
        super().__init__()
        first, second, third = AUDIO_CHANNELS
        self.mel = nn.Sequential(
            conv2d(1, first, (2, 1)), conv2d(first, second, (2, 2)), conv2d(second, third, (2, 2)),
            conv2d(third, third, (2, 1)),
        )  # fmt: skip
        self.mfcc = nn.Sequential(
            nn.Conv1d(N_MFCC, 64, 8, stride=MEL_PER_FRAME, padding=2, bias=False), nn.BatchNorm1d(64), nn.ReLU()
        )
        self.to_frame = nn.Sequential(nn.Dropout(0.2), nn.Linear(third * N_MELS // 16 + 64, EMBEDDING))
        self.time = TemporalHead()

    def forward(self, log_mel: Tensor, mfcc: Tensor) -> Tensor:
        """(B, 80, 4 T) and (B, 20, 4 T) to (B, T, 256)."""
        mel = self.mel(log_mel.unsqueeze(1)).flatten(1, 2)
        both = torch.cat([mel, self.mfcc(mfcc)], 1)
        return self.time(self.to_frame(both.transpose(1, 2)))


class SpatialBlock(nn.Module):
    """Residual block of two 3 x 3 convolutions (He et al. 2016) that halves the picture."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        self.short = nn.Conv2d(before, after, 1, bias=False)
        self.short_norm = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        return torch.relu(y + self.short_norm(self.short(F.avg_pool2d(x, 2))))


class TemporalHead(nn.Module):
    """Residual 1D convolutions over time, reaching 16 frames to either side; direction and length of the output.

    Takes and returns (B, T, 256).
    """

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([TemporalBlock(1), TemporalBlock(1), TemporalBlock(2), TemporalBlock(4)])
        self.out = nn.Linear(EMBEDDING, EMBEDDING)
        self.sure = nn.Linear(EMBEDDING, 1)
        nn.init.zeros_(self.sure.weight)
        nn.init.zeros_(self.sure.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        x = x.transpose(1, 2)
        return F.normalize(self.out(x).float(), dim=-1) * (2 * torch.sigmoid(self.sure(x).float()))


class TemporalBlock(nn.Module):
    """Residual block of a depth-wise convolution over time and a point-wise mixture."""

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(EMBEDDING)
        self.over_time = nn.Conv1d(EMBEDDING, EMBEDDING, 5, padding=2 * dilation, dilation=dilation, groups=EMBEDDING)
        self.mix = nn.Sequential(
            nn.Conv1d(EMBEDDING, 2 * EMBEDDING, 1), nn.ReLU(), nn.Dropout(0.1), nn.Conv1d(2 * EMBEDDING, EMBEDDING, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(self.over_time(self.norm(x)))


def conv2d(before: int, after: int, stride: tuple[int, int]) -> nn.Sequential:
    """3 x 3 convolution, batch normalisation, ReLU; ``stride``: over frequency, over time."""
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()
    )
