"""Does a mouth move as filmed mouths do, or as rendered ones? Judged from the pixels of a second, picture by picture.

A network that paints a mouth paints details where it expects them, picture for picture, or moves those of a few
pictures about; what a camera films has skin that stays itself and noise that does not. So what is looked at is details
of a few pixels and how they change, not what the mouth looks like: a convolutional network describes each picture, and
a transformer (Vaswani et al. 2017) compares the descriptions, as in detectors of temporal inconsistency (FTCN, Zheng
et al. 2021; RealForensics, Haliassos et al. 2022). A learnt attention (Ilse et al. 2018) says where to look.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FRAMES = 24
"""Pictures that are judged together: 0.96 s."""

SIZE = 96
CHANNELS = (24, 40, 72)
"""At 32 x 32, 16 x 16 and 8 x 8."""

FOLD = 3
"""Pixels to a side that the first convolution takes as one."""

HIDDEN, HEADS, LAYERS = 96, 4, 2
DETAIL_PX, REACH = 1.5, 3
"""Details are what a Gaussian of this width, cut off at so many pixels, takes away."""

USUAL = 4.0
"""Grey levels of a usual difference; larger ones are compressed."""


class TemporalDetector(nn.Module):
    """Grey mouths in; how rendered they move out.

    ``forward(mouths)``: (N, 24, 96, 96), successive grey crops in [0, 255], uint8 or float. Returns (N,) logits,
    > 0: rendered.
    """

    def __init__(self) -> None:
        super().__init__()
        first, second, third = CHANNELS
        self.frames = FRAMES
        self.changes = Changes()
        self.stem = conv(3 * FOLD**2, first)
        self.body = nn.Sequential(
            conv(first, second, 2), conv(second, second), conv(second, third, 2), conv(third, third)
        )
        self.attention = nn.Conv2d(third, 1, 1)
        self.place = nn.Parameter(torch.zeros((SIZE // FOLD // 4) ** 2))
        self.describe = nn.Linear(2 * third, HIDDEN)
        self.moment = nn.Parameter(torch.randn(FRAMES, HIDDEN) * 0.02)
        layer = nn.TransformerEncoderLayer(HIDDEN, HEADS, 2 * HIDDEN, 0.1, batch_first=True, norm_first=True)
        self.compare = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.decision = nn.Linear(2 * HIDDEN, 1)

    def forward(self, mouths: Tensor) -> Tensor:
        return self.judge(self.changes_of(mouths))

    @torch.jit.export
    def changes_of(self, mouths: Tensor) -> Tensor:
        """What is judged of (N, 24, 96, 96) grey crops: (24 N, 27, 32, 32), see `Changes`. Needs full precision."""
        return self.changes(mouths.float())

    @torch.jit.export
    def judge(self, changes: Tensor) -> Tensor:
        """Logits (N,) from what `changes_of` returns."""
        found = self.body(self.stem(changes))
        where = torch.softmax(self.attention(found).flatten(1) + self.place, 1)
        found = found.flatten(2)
        seen = torch.cat([(found * where.unsqueeze(1)).sum(2), found.mean(2)], 1)
        described = self.describe(seen).unflatten(0, (-1, self.frames))
        compared = self.compare(described + self.moment)
        return self.decision(torch.cat([compared.mean(1), compared.amax(1)], 1))[:, 0].float()


class Changes(nn.Module):
    """Details of each picture, and the first and second difference between its neighbours.

    (N, T, 96, 96) in [0, 255] to (N T, 27, 32, 32) in (-2, 2), 3 x 3 pixels folded into channels; the first and
    the last picture are their own neighbours.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fold, self.usual = FOLD, USUAL
        self.register_buffer("blur", blurring(SIZE, DETAIL_PX, REACH), persistent=False)

    def forward(self, mouths: Tensor) -> Tensor:
        around = torch.cat([mouths[:, :1], mouths, mouths[:, -1:]], 1)
        before, after = around[:, :-2], around[:, 2:]
        details = mouths - self.blur @ mouths @ self.blur.t()
        changes = torch.stack([details, mouths - before, after - 2 * mouths + before], 2).flatten(0, 1)
        compressed = 2 * changes / (changes.abs() + self.usual)
        return F.pixel_unshuffle(compressed, self.fold).contiguous(memory_format=torch.channels_last)


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


def conv(before: int, after: int, stride: int = 1) -> nn.Sequential:
    """3 x 3 convolution, batch normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()
    )
