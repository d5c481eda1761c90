"""The detectors are what they are said to be, scripted or not, streamed or at once."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from silero_vad import load_silero_vad
from torch import nn

from model.audio import N_MELS, N_MFCC, SpeechActivity, SpeechFeatures, equal_chunks
from model.detector import CONTEXT, MAX_OFFSET, LipSyncDetector
from model.engine import BATCH_FRAMES, Embedder
from model.media import SAMPLES_PER_FRAME
from model.sample import speech
from model.seed_detector import SeedLipSyncDetector


@pytest.fixture(scope="module")
def mouths() -> torch.Tensor:
    return torch.rand(2, 25, 3, 96, 96, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def sounds() -> torch.Tensor:
    return torch.stack([torch.from_numpy(speech(1.1, 16_000, seed).waveform[:16_000]) for seed in (1, 2)])[:, None]


def unlike_new(detector: nn.Module) -> nn.Module:
    """With batch statistics that are not the trivial ones."""
    torch.manual_seed(0)
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 2.0)
    return detector.eval()


@pytest.mark.parametrize("kind", [LipSyncDetector, SeedLipSyncDetector])
def test_scripted_and_eager_agree(kind, mouths, sounds):
    detector = unlike_new(kind())
    scripted = torch.jit.script(detector)
    with torch.inference_mode():
        for _ in range(3):  # the second and third calls are the optimised ones
            logits = scripted(mouths, sounds)
        assert logits.shape == (2, 2)
        assert (logits - detector(mouths, sounds)).abs().max() < 1e-4


def test_colour_is_seen_as_its_luma(mouths):
    detector = unlike_new(LipSyncDetector())
    grey = (mouths * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(2, keepdim=True)
    with torch.inference_mode():
        assert torch.allclose(detector.encode_video(mouths), detector.encode_video(grey), atol=1e-5)
        assert not torch.allclose(detector.encode_video(mouths), detector.encode_video(mouths[:, :, :1]), atol=1e-3)


def test_seed_detector_equals_its_definition_frame_by_frame(mouths, sounds):
    detector = unlike_new(SeedLipSyncDetector())
    with torch.inference_mode():
        frames = [detector.visual_encoder(mouths[:, t]) for t in range(mouths.shape[1])]
        both = torch.cat([torch.stack(frames).mean(0), detector.audio_encoder(sounds)], 1)
        expected = detector.classifier(both)
        assert torch.allclose(detector(mouths, sounds), expected, atol=1e-5)


def test_seed_detector_has_the_layers_that_were_asked_for():
    shapes = [tuple(p.shape) for p in SeedLipSyncDetector().parameters() if p.dim() > 1]
    assert shapes == [
        (64, 3, 5, 5), (128, 64, 3, 3), (512, 2048), (64, 1, 3), (128, 64, 3), (512, 4096), (256, 1024), (2, 256),
    ]  # fmt: skip
    dropout = [m.p for m in SeedLipSyncDetector().modules() if isinstance(m, nn.Dropout)]
    assert dropout == [0.3]


def test_the_order_of_the_frames_matters_to_the_default_and_not_to_the_seed(mouths, sounds):
    turned = mouths.flip(1)
    with torch.inference_mode():
        default, seed = unlike_new(LipSyncDetector()), unlike_new(SeedLipSyncDetector())
        assert (default(mouths, sounds) - default(turned, sounds)).abs().max() > 1e-4
        assert torch.allclose(seed(mouths, sounds), seed(turned, sounds), atol=1e-5)


def test_an_embedding_depends_on_nothing_beyond_its_context():
    detector = unlike_new(LipSyncDetector())
    mouths, sounds = torch.rand(1, 61, 3, 96, 96), torch.randn(1, 1, 61 * SAMPLES_PER_FRAME) * 0.1
    other_mouths, other_sounds = mouths.clone(), sounds.clone()
    other_mouths[:, 30] = 0
    other_sounds[..., 30 * SAMPLES_PER_FRAME : 31 * SAMPLES_PER_FRAME] = 0
    with torch.inference_mode():
        for change in (
            detector.encode_video(mouths) - detector.encode_video(other_mouths),
            detector.encode_audio(sounds) - detector.encode_audio(other_sounds),
        ):
            changed = change.abs().amax(2)[0].nonzero().flatten()
            assert 30 - CONTEXT <= changed.min() < 30 < changed.max() <= 30 + CONTEXT


@pytest.mark.parametrize(
    "frames", [1, CONTEXT, BATCH_FRAMES + CONTEXT - 1, BATCH_FRAMES + CONTEXT, 2 * BATCH_FRAMES + 37]
)
def test_embedding_a_stream_equals_embedding_it_at_once(frames):
    detector = unlike_new(LipSyncDetector())
    sound = torch.randn(1, 1, frames * SAMPLES_PER_FRAME) * 0.1

    def embed(pieces: list[np.ndarray]) -> np.ndarray:
        heard = torch.from_numpy(np.concatenate(pieces))[None, None]
        return detector.encode_audio(heard)[0].detach().numpy()

    with torch.inference_mode(), ThreadPoolExecutor(1) as aside:
        embedder = Embedder(embed, aside)
        for piece in sound[0, 0].numpy().reshape(-1, SAMPLES_PER_FRAME):
            embedder.push(piece)
        assert np.allclose(embedder.finish(), detector.encode_audio(sound)[0].numpy(), atol=1e-5)


@pytest.mark.parametrize("late", [-7, 0, 4])
def test_offset_similarity_peaks_where_the_sound_is(late):
    detector = LipSyncDetector().eval()
    sound = torch.nn.functional.normalize(torch.randn(1, 80, 256), dim=-1)
    mouth = sound[:, MAX_OFFSET + late : MAX_OFFSET + late + 50]
    with torch.inference_mode():
        similarity = detector.offset_similarity(mouth, sound)
    assert similarity.shape == (1, 50, 2 * MAX_OFFSET + 1)
    assert (similarity.argmax(2) - MAX_OFFSET == late).all()


def test_features_have_four_columns_a_picture_and_follow_loudness(sounds):
    log_mel, mfcc = SpeechFeatures()(sounds[:, 0])
    assert log_mel.shape == (2, N_MELS, 100) and mfcc.shape == (2, N_MFCC, 100)
    louder, _ = SpeechFeatures()(sounds[:, 0] * 4)
    assert (louder - log_mel).mean() > 0.1


def test_a_click_is_seen_in_the_column_of_its_instant():
    wave = torch.zeros(1, 16_000)
    wave[0, 8_000:8_160] = 0.5
    assert int(SpeechFeatures()(wave)[0].sum(1).argmax()) == 50


def test_speech_is_told_from_silence_and_noise():
    activity = SpeechActivity()
    voice = speech(3, 16_000, seed=3).waveform
    noise = np.random.default_rng(0).normal(0, 0.05, 48_000).astype(np.float32)
    assert (activity.per_frame([voice]) > 0.5).mean() > 0.6
    assert (activity.per_frame([np.zeros(48_000, np.float32)]) > 0.5).sum() == 0
    assert (activity.per_frame([noise]) > 0.5).mean() < 0.1
    pieces = [voice[i : i + 777] for i in range(0, len(voice), 777)]
    assert np.allclose(activity.per_frame(pieces), activity.per_frame([voice]))
    assert len(activity.per_frame([])) == 0


def test_speech_is_heard_as_the_package_that_brings_the_network_hears_it():
    voice = speech(3, 16_000, seed=3).waveform
    package = load_silero_vad()
    with torch.inference_mode():
        each = [float(package(torch.from_numpy(chunk), 16_000)) for chunk in equal_chunks([voice], 512)]
    frames = (np.arange(len(each) * 512 // 640) + 0.5) * 640
    expected = np.interp(frames, (np.arange(len(each)) + 0.5) * 512, each)
    assert np.allclose(SpeechActivity().per_frame([voice]), expected, atol=1e-4)


def test_speech_activity_leaves_the_threads_of_the_process_alone():
    probe = "import torch; n = torch.get_num_threads(); from model.audio import SpeechActivity; SpeechActivity(); "
    subprocess.run([sys.executable, "-c", probe + "assert torch.get_num_threads() == n"], check=True)
