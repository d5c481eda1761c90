"""Do the mouth and the voice of a talking-face video belong together?

``analyze(path, load_detector())`` answers for one file. The path it takes, one module each: `media` ->
`faces` -> `crops` -> `detector` -> `windows` -> `verdict`, joined in `pipeline`.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its other threads would spin between products that are small here

if TYPE_CHECKING:
    from model.engine import Detector, load_detector
    from model.errors import MediaError
    from model.media import Limits
    from model.pipeline import analyze
    from model.results import Analysis, DetectorInfo

_HOMES = {
    "Analysis": "results",
    "Detector": "engine",
    "DetectorInfo": "results",
    "Limits": "media",
    "MediaError": "errors",
    "analyze": "pipeline",
    "load_detector": "engine",
}

__all__ = ["Analysis", "Detector", "DetectorInfo", "Limits", "MediaError", "analyze", "load_detector"]


def __getattr__(name: str) -> Any:
    """Import on first use: whoever needs only the records of an answer does not wait for PyTorch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"model.{_HOMES[name]}"), name)
