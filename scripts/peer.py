"""The same networks behind LitServe, to compare with.

Run: ``PORT=N python -m scripts.peer --workers N --batch N --wait-ms N``.

Each worker decodes, finds the faces, crops, and puts what is batched through the networks. There is no speech
detection, no window and no verdict, and a crash of a decoder takes the worker with it: the peer has less to do.
Videos of one batch must be equally long. Install it with ``pip install --no-deps litserve==0.2.19 pyzmq==27.3.0``.
"""

import argparse
import base64
import os
import tempfile
from pathlib import Path
from typing import Any

import litserve
import numpy as np
import torch

from model import load_detector
from model.crops import as_grey
from model.temporal import FRAMES
from model.training.prepare import prepare_clip

Arrays = dict[str, np.ndarray]


class Peer(litserve.LitAPI):
    """Mouths and sound of a video, embedded, and how rendered the mouths look."""

    def setup(self, device: str) -> None:
        """Load the networks."""
        torch.set_num_threads(1)
        self._run = load_detector(device).run

    def decode_request(self, request: dict[str, str]) -> Arrays:
        """``request``: a video as base64 under "video"."""
        with tempfile.NamedTemporaryFile() as file:
            file.write(base64.b64decode(request["video"]))
            file.flush()
            return prepare_clip(Path(file.name))

    def batch(self, inputs: list[Arrays]) -> Arrays:
        """Stack what several videos have."""
        return {name: np.stack([one[name] for one in inputs]) for name in ("crops", "audio")}

    def predict(self, batch: Arrays) -> list[float]:
        """One number for each video, of all that the networks say."""
        size, frames = batch["crops"].shape[:2]
        grey = as_grey(batch["crops"])
        whole = grey[:, : frames - frames % FRAMES]
        rendered = self._run("sequences", whole.reshape(-1, FRAMES, *grey.shape[2:]))
        video = self._run("mouths", grey)
        sound = self._run("sound", batch["audio"].astype(np.float32) / 32768)
        return [float((video[i] * sound[i]).mean() + rendered.reshape(size, -1)[i].mean()) for i in range(size)]

    def encode_response(self, output: float) -> dict[str, Any]:
        """As JSON."""
        return {"score": output}


def main() -> None:
    """Command line: see the module."""
    parser = argparse.ArgumentParser(description="Serve the networks with LitServe.")
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True, help="videos at once, at most")
    parser.add_argument("--wait-ms", type=float, required=True, help="how long a video waits for company")
    arguments = parser.parse_args()
    api = Peer(max_batch_size=arguments.batch, batch_timeout=arguments.wait_ms / 1000)
    server = litserve.LitServer(api, accelerator="auto", devices=1, workers_per_device=arguments.workers, timeout=False)
    server.run(host="127.0.0.1", port=int(os.environ["PORT"]), log_level="error", generate_client_file=False)


if __name__ == "__main__":
    main()
