"""Does a mouth look filmed or rendered? Judged from the pixels of a second: six pictures, each with its neighbours.

A network that paints a mouth paints details where it expects them, picture for picture, or moves those of a few
pictures about; what a camera films has skin that stays itself and noise that does not. So what is looked at is details
of a few pixels and how they change, not what the mouth looks like, as in detectors of temporal inconsistency (FTCN,
Zheng et al. 2021). What details are is known from photographs: the first blocks of EfficientNet-Lite0 (Tan & Le 2019),
trained on ImageNet before they were trained here, where details, first and second difference take the place of red,
green and blue. A learnt attention (Ilse et al. 2018) says where to look.
"""

import torch
from torch import Tensor, nn

FRAMES = 24
"""Pictures of a sequence: 0.96 s."""

JUDGED = slice(2, FRAMES, 4)
"""Those of them that are judged; their neighbours are seen, too."""

SIZE = 96
STEM = 32
BLOCKS = (
    (16, 1, 3, 1), (24, 6, 3, 2), (24, 6, 3, 1), (40, 6, 5, 2), (40, 6, 5, 1), (80, 6, 3, 2), (80, 6, 3, 1),
    (80, 6, 3, 1), (112, 6, 5, 1), (112, 6, 5, 1), (112, 6, 5, 1),
)  # fmt: skip
"""Of EfficientNet-Lite0: channels that come out, by how much they are widened, pixels to a side, stride."""

DROPOUT = 0.3
DETAIL_PX, REACH = 1.0, 2
"""Details are what a Gaussian of this width, cut off at so many pixels, takes away."""

USUAL = 4.0
"""Grey levels of a usual difference; larger ones are compressed."""


class TemporalDetector(nn.Module):
    """Grey mouths in; how rendered they look out.

    ``forward(mouths)``: (N, 24, 96, 96), successive grey crops in [0, 255], uint8 or float. Returns (N,) logits,
    > 0: rendered.
    """

    def __init__(self) -> None:
        super().__init__()
        self.changes = Changes()
        self.judged = len(range(FRAMES)[JUDGED])
        self.trunk = trunk()
        channels = BLOCKS[-1][0]
        self.attention = nn.Conv2d(channels, 1, 1)
        self.decision = nn.Sequential(nn.Dropout(DROPOUT), nn.Linear(2 * channels, 1))

    def forward(self, mouths: Tensor) -> Tensor:
        return self.judge(self.changes_of(mouths))

    @torch.jit.export
    def changes_of(self, mouths: Tensor) -> Tensor:
        """What is judged of (N, 24, 96, 96) grey crops: (6 N, 3, 96, 96), see `Changes`. Needs full precision."""
        return self.changes(mouths.float())

    @torch.jit.export
    def judge(self, changes: Tensor) -> Tensor:
        """Logits (N,) from what `changes_of` returns: the mean of those of each picture."""
        found = self.trunk(changes)
        where = torch.softmax(self.attention(found).flatten(1), 1)
        found = found.flatten(2)
        seen = torch.cat([(found * where.unsqueeze(1)).sum(2), found.mean(2)], 1)
        return self.decision(seen).view(-1, self.judged).float().mean(1)


class Changes(nn.Module):
    """Details of each of `JUDGED`, and the first and second difference between its neighbours.

    (N, 24, 96, 96) in [0, 255] to (6 N, 3, 96, 96) in (-2, 2).
    """

    def __init__(self) -> None:
        super().__init__()
        self.first, self.step = JUDGED.start, JUDGED.step
        self.usual = USUAL
        self.register_buffer("blur", blurring(SIZE, DETAIL_PX, REACH), persistent=False)

    def forward(self, mouths: Tensor) -> Tensor:
        before, now, after = [mouths[:, self.first + by :: self.step] for by in (-1, 0, 1)]
        details = now - self.blur @ now @ self.blur.t()
        changes = torch.stack([details, now - before, after - 2 * now + before], 2).flatten(0, 1)
        return (2 * changes / (changes.abs() + self.usual)).contiguous(memory_format=torch.channels_last)


class Block(nn.Module):
    """Inverted residual (Sandler et al. 2018): widened, filtered channel by channel, narrowed."""

    def __init__(self, before: int, after: int, widened: int, size: int, stride: int) -> None:
        super().__init__()
        wide = before * widened
        layers = [*conv(before, wide, 1), nn.ReLU6()] if widened > 1 else []
        layers += [*conv(wide, wide, size, stride, groups=wide), nn.ReLU6(), *conv(wide, after, 1)]
        self.layers = nn.Sequential(*layers)
        self.added = stride == 1 and before == after

    def forward(self, found: Tensor) -> Tensor:
        return found + self.layers(found) if self.added else self.layers(found)


def trunk() -> nn.Sequential:
    """The first `BLOCKS` of EfficientNet-Lite0: (N, 3, 96, 96) to (N, 112, 6, 6)."""
    widths = [STEM, *(channels for channels, *_ in BLOCKS)]
    blocks = [Block(before, *block) for before, block in zip(widths, BLOCKS)]
    return nn.Sequential(*conv(3, STEM, 3, 2), nn.ReLU6(), *blocks)


def conv(before: int, after: int, size: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Convolution, batch normalisation; what is uneven of the padding comes last, as in TensorFlow."""
    padding = size - stride
    return [
        nn.ZeroPad2d((0, 1, 0, 1)) if padding % 2 else nn.Identity(),
        nn.Conv2d(before, after, size, stride, padding // 2, groups=groups, bias=False),
        nn.BatchNorm2d(after, eps=1e-3, momentum=0.01),
    ]


def blurring(size: int, sigma: float, reach: int) -> Tensor:
    """(size, size) matrix that blurs a column by a Gaussian, cut off at ``reach``, mirrored at the ends."""
    at = torch.arange(-reach, reach + 1, dtype=torch.float32)
    gauss = torch.exp(-(at**2) / (2 * sigma**2))
    places = torch.arange(size)
    matrix = torch.zeros(size, size)
    for offset, weight in zip(range(-reach, reach + 1), gauss / gauss.sum()):
        mirrored = size - 1 - (size - 1 - (places + offset).abs()).abs()
        matrix[places, mirrored] += weight
    return matrix
