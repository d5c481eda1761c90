"""Do the mouth and the voice of a talking-face video belong together?

``analyze(path, load_detector())`` answers for one file. The path it takes, one module each: `media` ->
`faces` -> `crops` -> `detector` -> `windows` -> `verdict`, joined in `pipeline`.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its other threads would spin between products that are small here

from model.engine import Detector, DetectorInfo, load_detector
from model.errors import MediaError
from model.media import Limits
from model.pipeline import analyze
from model.results import Analysis

__all__ = ["Analysis", "Detector", "DetectorInfo", "Limits", "MediaError", "analyze", "load_detector"]
