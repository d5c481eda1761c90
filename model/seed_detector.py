"""The reference detector: simple, time-blind, kept as the baseline of every accuracy table."""

import torch
from torch import Tensor, nn


class SeedLipSyncDetector(nn.Module):
    """Two plain encoders, concatenated and classified.

    ``forward(mouth_frames, audio_segment)``: ``mouth_frames`` (B, T, 3, H, W) float in [0, 1],
    ``audio_segment`` (B, 1, L) float, raw sound of the same span. Returns (B, 2) logits: in sync, out of
    sync. Each frame is encoded on its own and the encodings are averaged over T, so the order of the
    frames is lost: that is its weakness, and why it is only the baseline.
    """

    def __init__(self) -> None:
        super().__init__()
        self.visual_encoder = nn.Sequential(
            nn.Conv2d(3, 64, 5, stride=2, padding=2), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(64, 128, 3, padding=1), nn.BatchNorm2d(128), nn.ReLU(), nn.MaxPool2d(2),
            nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(2048, 512),
        )  # fmt: skip
        self.audio_encoder = nn.Sequential(
            nn.Conv1d(1, 64, 3, padding=1), nn.BatchNorm1d(64), nn.ReLU(), nn.MaxPool1d(2),
            nn.Conv1d(64, 128, 3, padding=1), nn.BatchNorm1d(128), nn.ReLU(),
            nn.AdaptiveAvgPool1d(32), nn.Flatten(), nn.Linear(4096, 512),
        )  # fmt: skip
        self.classifier = nn.Sequential(nn.Linear(1024, 256), nn.ReLU(), nn.Dropout(0.3), nn.Linear(256, 2))

    def forward(self, mouth_frames: Tensor, audio_segment: Tensor) -> Tensor:
        visual = self.visual_encoder(mouth_frames.flatten(0, 1)).unflatten(0, mouth_frames.shape[:2]).mean(1)
        return self.classifier(torch.cat([visual, self.audio_encoder(audio_segment)], dim=1))
