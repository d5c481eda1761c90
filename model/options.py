"""What may be asked of an analysis."""

from dataclasses import dataclass

WINDOW_S, HOP_S, MAX_FACES = 1.0, 0.2, 4
WINDOW_RANGE_S, HOP_RANGE_S, FACES_RANGE = (0.2, 10.0), (0.04, 10.0), (1, 8)


@dataclass(frozen=True, slots=True)
class Options:
    """See `model.analyze`. Raises ValueError for what is out of range."""

    window_s: float = WINDOW_S
    hop_s: float = HOP_S
    max_faces: int = MAX_FACES
    playback: bool = False

    def __post_init__(self) -> None:
        _check_range("window_s", self.window_s, WINDOW_RANGE_S)
        _check_range("hop_s", self.hop_s, HOP_RANGE_S)
        _check_range("max_faces", self.max_faces, FACES_RANGE)


def _check_range(name: str, value: float, allowed: tuple[float, float]) -> None:
    if not allowed[0] <= value <= allowed[1]:
        raise ValueError(f"{name} must be from {allowed[0]:g} to {allowed[1]:g}, not {value:g}")
