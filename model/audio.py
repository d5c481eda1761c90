"""Sound in; log-mel and MFCC features, and where somebody speaks, out. Everything at 16 kHz mono."""

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
import torchaudio.transforms as T
from torch import Tensor, nn

from model.media import SAMPLE_RATE, SAMPLES_PER_FRAME

N_MELS, N_MFCC = 80, 20
N_FFT, HOP = 512, 160
MEL_PER_FRAME = SAMPLES_PER_FRAME // HOP
"""Feature columns in one picture of the 25 fps grid."""

SPEECH_THRESHOLD = 0.5
_VAD_SAMPLES, _VAD_AT_ONCE = 512, 32


class SpeechFeatures(nn.Module):
    """Log-mel spectrogram and MFCC of a waveform, 10 ms apart; both centred on the same instants.

    Input (B, L) float, L a multiple of 160; output log-mel (B, 80, L / 160) and MFCC (B, 20, L / 160),
    both scaled to about unit range. MFCC: DCT-II of the log-mel (Davis & Mermelstein 1980).
    """

    def __init__(self) -> None:
        super().__init__()
        self.mel = T.MelSpectrogram(
            SAMPLE_RATE, n_fft=N_FFT, win_length=400, hop_length=HOP, f_min=55.0, f_max=7600.0, n_mels=N_MELS,
            center=False,
        )  # fmt: skip
        self.side = (N_FFT - HOP) // 2
        mfcc = T.MFCC(SAMPLE_RATE, n_mfcc=N_MFCC, melkwargs={"n_mels": N_MELS, "n_fft": N_FFT})
        self.register_buffer("dct", mfcc.dct_mat.T.contiguous(), persistent=False)

    def forward(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        log_mel = torch.log(self.mel(F.pad(waveform, (self.side, self.side))) + 1e-5)
        log_mel = (log_mel + 5.0) / 4.0
        return log_mel, torch.matmul(self.dct, log_mel) / 4.0


class SpeechActivity:
    """Probability of speech over time (Silero VAD, MIT licence; its weights ship in its package).

    Its package puts 32 ms through the network at a time. Only the last part of it has a memory, so here the parts
    before it see a second at once, which gives the same for a third of the time.
    """

    def __init__(self) -> None:
        self._network = _load_vad()._model

    def per_frame(self, pieces: Iterable[np.ndarray]) -> np.ndarray:
        """Speech probability, (T,) float32 in [0, 1], for every 40 ms of the sound in ``pieces``.

        ``pieces``: consecutive (n,) float32 at 16 kHz, read one by one. Safe to call from several threads.
        """
        found = self._per_chunk(equal_chunks(pieces, _VAD_SAMPLES))
        if not found:
            return np.zeros(0, np.float32)
        centres = (np.arange(len(found)) + 0.5) * _VAD_SAMPLES
        frames = len(found) * _VAD_SAMPLES // SAMPLES_PER_FRAME
        return np.interp((np.arange(frames) + 0.5) * SAMPLES_PER_FRAME, centres, found).astype(np.float32)

    def _per_chunk(self, chunks: Iterator[np.ndarray]) -> list[float]:
        network, found = self._network, []
        before, memory = torch.zeros(1, _VAD_SAMPLES), torch.zeros(0)
        while some := list(islice(chunks, _VAD_AT_ONCE)):
            with torch.inference_mode():
                sound = torch.cat([before, torch.from_numpy(np.stack(some))])
                around = torch.cat([sound[:-1, -network.context_size_samples :], sound[1:]], 1)
                before = sound[-1:]
                for described in network.encoder(network.run_extractors(around)).split(1):
                    probability, memory = network.decoder(described, memory)
                    found.append(float(probability.mean()))
        return found


def _load_vad() -> nn.Module:
    threads = torch.get_num_threads()
    from silero_vad import load_silero_vad  # this import sets the threads of the whole process to one

    torch.set_num_threads(threads)
    return load_silero_vad()


def equal_chunks(pieces: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """The same sound in pieces of ``size`` samples, the last one filled up with zeros."""
    rest = np.zeros(0, np.float32)
    for piece in pieces:
        rest = np.concatenate([rest, piece])
        whole = len(rest) // size * size
        yield from rest[:whole].reshape(-1, size)
        rest = rest[whole:]
    if len(rest):
        yield np.pad(rest, (0, size - len(rest)))
