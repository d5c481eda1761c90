"""Does a face look filmed or rendered? Judged from its pixels alone, two pictures at a time.

A convolutional network looks at the whole face at its native size, in which a rendered mouth betrays itself by
what surrounds it: sharper or smoother skin, other noise, a seam, a face that stands still around moving lips.
The trunk is EfficientNet-Lite0 (Tan & Le 2019; the Lite variant without squeeze and swish), up to a sixteenth of
the resolution; a learnt attention (as in Ilse et al. 2018) says where to look.
"""

import torch
from torch import Tensor, nn

STAGES = ((16, 1, 3, 1, 1), (24, 6, 3, 2, 2), (40, 6, 5, 2, 2), (80, 6, 3, 2, 3), (112, 6, 5, 1, 3))
"""Of each stage of the trunk: channels, expansion, kernel, stride, blocks."""

STEM = 32
HIDDEN = 128
SIDE = 10
"""Of the map of features, for faces of 160 x 160."""


class ContentDetector(nn.Module):
    """Faces in; how rendered each looks out.

    ``forward(faces)``: (N, 2, 3, 160, 160) float in [0, 1], two pictures 80 ms apart cut out at the same place
    (`model.crops.FaceCrop`). Returns (N,) logits, > 0: rendered.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trunk = Trunk()
        self.motion = nn.Conv2d(1, STEM, 3, stride=2, padding=1, bias=False)
        nn.init.zeros_(self.motion.weight)
        self.features = nn.Sequential(
            nn.Conv2d(STAGES[-1][0], HIDDEN, 1, bias=False), nn.BatchNorm2d(HIDDEN), nn.ReLU6()
        )
        self.attention = nn.Conv2d(HIDDEN, 1, 1)
        self.place = nn.Parameter(torch.zeros(SIDE * SIDE))
        self.decision = nn.Sequential(nn.Dropout(0.3), nn.Linear(2 * HIDDEN, 1))

    def forward(self, faces: Tensor) -> Tensor:
        now, later = faces[:, 0], faces[:, 1]
        moved = (later - now).mean(1, keepdim=True) * 4
        stem = self.trunk.stem((now - 0.5) * 2) + self.motion(moved.contiguous(memory_format=torch.channels_last))
        found = self.features(self.trunk.after_stem(stem))
        where = torch.softmax(self.attention(found).flatten(1) + self.place, 1)
        found = found.flatten(2)
        seen = torch.cat([(found * where.unsqueeze(1)).sum(2), found.mean(2)], 1)
        return self.decision(seen)[:, 0].float()


class Trunk(nn.Module):
    """EfficientNet-Lite0 to a sixteenth of the resolution, (N, 3, H, W) in [-1, 1] to (N, 112, H / 16, W / 16)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, STEM, 3, stride=2, padding=1, bias=False)
        self.stem_norm = norm(STEM)
        blocks, before = [], STEM
        for channels, expansion, kernel, stride, count in STAGES:
            for index in range(count):
                blocks.append(InvertedResidual(before, channels, expansion, kernel, stride if index == 0 else 1))
                before = channels
        self.blocks = nn.Sequential(*blocks)

    def after_stem(self, x: Tensor) -> Tensor:
        """From the output of ``stem`` on."""
        return self.blocks(nn.functional.relu6(self.stem_norm(x)))


class InvertedResidual(nn.Module):
    """Widen, convolve every channel by itself, narrow (Sandler et al. 2018)."""

    def __init__(self, before: int, after: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = before * expansion
        layers: list[nn.Module] = []
        if expansion > 1:
            layers += [nn.Conv2d(before, wide, 1, bias=False), norm(wide), nn.ReLU6()]
        layers += [
            nn.Conv2d(wide, wide, kernel, stride=stride, padding=kernel // 2, groups=wide, bias=False),
            norm(wide), nn.ReLU6(), nn.Conv2d(wide, after, 1, bias=False), norm(after),
        ]  # fmt: skip
        self.layers = nn.Sequential(*layers)
        self.residual = before == after and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x)
        return x + y if self.residual else y


def norm(channels: int) -> nn.BatchNorm2d:
    """Batch normalisation as the trunk was trained with."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)
