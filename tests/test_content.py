"""The look of a face: the network, the fakes that it learns from, and what is done to real and fake alike."""

import numpy as np
import pytest
import torch

from model.content import ContentDetector, Trunk
from model.crops import FACE_EVERY, FACE_SIZE, follow_mouths
from model.faces import FaceFinder
from model.media import Frame
from model.sample import TalkingFace, portrait
from model.training.autoencoder import KINDS, train, with_autoencoded
from model.training.clips import Clip
from model.training.generated import MOUTH, with_generated_mouths
from model.training.generator import MouthGenerator
from model.training.prepare import PreparedFaces
from model.training.pseudo_fakes import (
    Moment,
    autoencoded,
    changed,
    degrade,
    from_another_moment,
    h264,
    lower_box,
    pseudo_fake,
    region,
    rerendered,
    still,
    talking_still,
)
from model.training.train_content import TWINS, Batches, FaceSampler, load_trunk, to_tensor
from model.weights import save_weights


@pytest.fixture(scope="module")
def faces() -> PreparedFaces:
    """The made talking face at three moments."""
    talking = TalkingFace(portrait(), size=(320, 376))
    frames = [Frame(i, talking.draw(0.5 + 0.5 * np.sin(i / 3), 0.5), 1.0) for i in range(2 * FACE_EVERY + 4)]
    with FaceFinder() as finder:
        crops = [crop for now in follow_mouths(iter(frames), finder) for crop in now.ready.get(0, []) if crop.face]
    return PreparedFaces(
        Clip("real/made/ann/1.mp4", False, "made", "ann"),
        np.array([crop.index for crop in crops]),
        np.stack([crop.face.pixels for crop in crops]),
        np.stack([crop.face.landmarks for crop in crops]),
    )


@pytest.fixture
def moment(faces) -> Moment:
    return Moment(faces.pixels[0], faces.landmarks[0])


def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(160, 160): mean over pictures and colours."""
    return np.abs(a.astype(int) - b).mean((0, 3))


def test_one_logit_a_face_compiled_or_not_alone_or_not():
    torch.manual_seed(0)
    detector = ContentDetector().eval()
    pairs = torch.rand(3, 2, 3, FACE_SIZE, FACE_SIZE)
    with torch.inference_mode():
        together = detector(pairs)
        alone = torch.cat([detector(pair[None]) for pair in pairs])
        compiled = torch.jit.optimize_for_inference(torch.jit.script(detector))(pairs)
    assert together.shape == (3,)
    assert torch.allclose(together, alone, atol=1e-4) and torch.allclose(together, compiled, atol=1e-4)


def test_the_network_can_learn_from_motion_as_well_as_from_pixels():
    detector = ContentDetector()
    detector(torch.rand(2, 2, 3, FACE_SIZE, FACE_SIZE)).sum().backward()
    assert detector.motion.weight.grad.abs().sum() > 0 and detector.trunk.stem.weight.grad.abs().sum() > 0


def test_the_trunk_takes_published_weights_in_order_and_no_others(tmp_path):
    source = Trunk().state_dict()
    torch.save(
        {f"layer{i}": value + 1 for i, value in enumerate(source.values())} | {"head": torch.ones(1)}, tmp_path / "a"
    )
    trunk = Trunk()
    load_trunk(trunk, tmp_path / "a")
    assert all(torch.equal(trunk.state_dict()[name], value + 1) for name, value in source.items())
    torch.save(dict(reversed(source.items())), tmp_path / "b")
    with pytest.raises(ValueError, match="EfficientNet-Lite0"):
        load_trunk(trunk, tmp_path / "b")


def test_only_a_region_around_the_mouth_is_rerendered(moment):
    rng = np.random.default_rng(0)
    mouth, forehead = (slice(90, 112), slice(65, 95)), (slice(0, 12), slice(0, 160))
    inside, outside = [], []
    for _ in range(30):
        changes = difference(rerendered(moment, rng), moment.pixels)
        inside.append(changes[mouth].mean())
        outside.append(changes[forehead].mean())
    assert np.mean(np.array(outside) < 0.5) > 0.8
    assert np.mean(np.array(inside) > 0.5) > 0.8


def test_regions_are_masks_over_the_mouth(moment):
    rng = np.random.default_rng(1)
    for mask in [region(moment.landmarks, rng) for _ in range(20)] + [
        lower_box(moment.landmarks, rng) for _ in range(5)
    ]:
        assert mask.shape == (FACE_SIZE, FACE_SIZE) and mask.min() >= 0 and mask.max() < 1.001
        assert mask[100, 80] > 0.5 and 0.005 < mask.mean() < 0.7


def test_another_moments_mouth_is_put_into_place(faces, moment):
    rng = np.random.default_rng(2)
    other = Moment(faces.pixels[1], faces.landmarks[1])
    same = [
        difference(from_another_moment(moment, moment, rng), moment.pixels)[90:112, 65:95].mean() for _ in range(10)
    ]
    differs = [
        difference(from_another_moment(moment, other, rng), moment.pixels)[90:112, 65:95].mean() for _ in range(10)
    ]
    assert np.median(differs) > np.median(same)


def test_a_still_that_talks_moves_at_the_mouth_most(moment):
    rng = np.random.default_rng(3)
    motion = np.mean(
        [difference(pair[:1], pair[1:]) for pair in (talking_still(moment, moment, rng) for _ in range(20))], 0
    )
    assert motion[90:130, 60:100].mean() > 1.5 * motion[:30].mean()


def test_every_pseudo_fake_and_every_degradation_is_a_face_again(faces):
    rng = np.random.default_rng(4)
    for i in range(60):
        one, other = (
            Moment(faces.pixels[k], faces.landmarks[k], faces.pixels[k]) for k in rng.integers(len(faces.at), size=2)
        )
        for pair in (pseudo_fake(one, other, rng), changed(one.pixels, rng), degrade(one.pixels, rng)):
            assert pair.shape == one.pixels.shape and pair.dtype == np.uint8, i


def test_the_same_seed_degrades_the_same_way(moment):
    first, again = (degrade(moment.pixels, np.random.default_rng(7)) for _ in range(2))
    assert np.array_equal(first, again)


def test_a_higher_rate_factor_loses_more(moment):
    fine, coarse = (difference(h264(moment.pixels, crf), moment.pixels).mean() for crf in (10, 40))
    assert fine < 3 < coarse
    assert np.array_equal(*still(moment.pixels))


def test_a_batch_is_half_rendered_and_its_pairs_are_degraded_alike(faces, monkeypatch):
    pictures, labels = Batches([faces], seed=0).draw()
    assert pictures.shape == (2 * TWINS, 2, 3, FACE_SIZE, FACE_SIZE)
    assert labels.tolist() == [0] * TWINS + [1] * TWINS
    assert pictures.min() >= 0 and pictures.max() <= 1
    monkeypatch.setattr("model.training.train_content.pseudo_fake", lambda moment, other, rng: moment.pixels)
    pictures, _ = Batches([faces], seed=0).draw()
    assert torch.equal(pictures[:TWINS], pictures[TWINS:])


def test_a_sampler_draws_two_moments_of_one_clip(faces):
    light = PreparedFaces(Clip("b", False, "made", "bob"), faces.at, np.full_like(faces.pixels, 200), faces.landmarks)
    dark = PreparedFaces(Clip("c", False, "other", "cat"), faces.at, np.full_like(faces.pixels, 20), faces.landmarks)
    sampler = FaceSampler([light, dark], seed=0)
    drawn = [sampler.draw() for _ in range(30)]
    assert all(one.pixels.mean() == other.pixels.mean() for one, other in drawn)
    assert {one.pixels.mean() for one, _ in drawn} == {20, 200}


def test_generated_mouths_change_nothing_but_the_mouth(faces, tmp_path):
    from model.detector import LipSyncDetector

    path = tmp_path / (faces.clip.path + ".npz")
    path.parent.mkdir(parents=True)
    frames = int(faces.at[-1]) + 3
    np.savez(
        path, crops=np.zeros((frames, 96, 96, 3), np.uint8), audio=np.ones(frames * 640, np.int16),
        visible=np.ones(frames, bool), lip_opening=np.zeros(frames, np.float32),
    )  # fmt: skip
    (repainted,) = with_generated_mouths([faces], tmp_path, MouthGenerator(), LipSyncDetector().eval(), seed=0)
    changes = difference(
        repainted.generated.reshape(-1, FACE_SIZE, FACE_SIZE, 3), faces.pixels.reshape(-1, FACE_SIZE, FACE_SIZE, 3)
    )
    assert changes[MOUTH].mean() > 5
    changes[MOUTH] = 0
    assert changes.max() == 0


def test_a_face_that_went_through_an_autoencoder_is_a_pseudo_fake(faces, tmp_path):
    for kind in KINDS:
        autoencoder = train(kind, [faces], minutes=0.001)
        assert autoencoder(to_tensor([faces.pixels[0]])[0]).shape == (2, 3, FACE_SIZE, FACE_SIZE)
        save_weights(autoencoder, tmp_path / f"autoencoder_{kind.enlarge}.safetensors")
    (coded,) = with_autoencoded([faces], tmp_path, seed=0)
    assert coded.coded.shape == faces.pixels.shape and coded.coded.dtype == np.uint8
    assert difference(coded.coded[0], faces.pixels[0]).mean() > 1
    moment, rng = Moment(faces.pixels[0], faces.landmarks[0], coded=coded.coded[0]), np.random.default_rng(0)
    fakes = [autoencoded(moment, rng) for _ in range(12)]
    assert any(np.array_equal(fake, moment.coded) for fake in fakes)
    assert any((difference(fake, moment.pixels) == 0).mean() > 0.2 for fake in fakes)


def test_pixels_become_numbers_in_order(faces):
    tensor = to_tensor([faces.pixels[0]])
    assert tensor.shape == (1, 2, 3, FACE_SIZE, FACE_SIZE)
    assert tensor[0, 1, 2, 5, 7].item() == pytest.approx(faces.pixels[0, 1, 5, 7, 2] / 255)
