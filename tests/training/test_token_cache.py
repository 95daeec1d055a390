import json
import os
import signal
import subprocess
import sys
from itertools import islice

import numpy as np
import pytest
import torch
from conftest import ROOT, tiny_tokenizer, visits
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from varient.config import Augmentation
from varient.models.vqvae import from_uint8
from varient.training.augmentation import AugmentedImages, EncodedImages, Preprocessing
from varient.training.data import LabeledImages, TokensInMemory, Visit
from varient.training.image_folder import ImageFolder
from varient.training.token_cache import TokenCache, TokenCacheError, TokenCacheSpec, build_token_cache

NUM_IMAGES, SHARD_SIZE = 53, 10
PREPROCESSING = Preprocessing(image_size=8, resize=1)


def _source(num=NUM_IMAGES):
    pixels = np.random.default_rng(0).integers(0, 256, (num, 3, 8, 8), dtype=np.uint8)
    return LabeledImages(torch.from_numpy(pixels), torch.arange(num) % 5)


def _spec(source, **changes):
    return TokenCacheSpec(**dict(tokenizer_sha256="t" * 64, images_sha256=source.identity,
                                 preprocessing=PREPROCESSING, flipped=True, num_images=len(source), num_classes=5,
                                 tokens_per_image=31, vocab_size=32, shard_size=SHARD_SIZE) | changes)


def _build(folder, source=None, encode=None, **changes):
    source = source or _source()
    build_token_cache(folder, source, _spec(source, **changes), encode or tiny_tokenizer().encode, at_once=4)


def _open(folder, source=None, **settings):
    return TokenCache(folder, _spec(source or _source()), **settings)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built") / "tokens"
    _build(folder)
    return folder


@pytest.fixture
def cache(built, tmp_path):
    """A copy that a test may damage."""
    folder = tmp_path / "tokens"
    folder.mkdir()
    for path in built.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def _bytes(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_cache_holds_the_tokens_of_images_and_their_mirror_images(built):
    source, tokenizer, cache = _source(), tiny_tokenizer(), _open(built)
    everything = torch.arange(NUM_IMAGES)
    for flipped, images in ((False, source.images), (True, source.images.flip(-1))):
        tokens = cache.tokens(everything, torch.full((NUM_IMAGES,), flipped))
        assert torch.equal(tokens, tokenizer.encode(from_uint8(images))) and tokens.dtype == torch.int64
    assert torch.equal(cache.labels, source.labels) and cache.num_classes == 5 and len(cache) == NUM_IMAGES
    assert sorted(path.name for path in built.glob("tokens-*")) == [f"tokens-0000{shard}.npy" for shard in range(6)]
    assert np.load(built / "tokens-00005.npy").shape == (3, 2, 31)
    assert np.load(built / "tokens-00005.npy").dtype == np.uint16


@given(chosen=st.lists(st.tuples(st.integers(0, NUM_IMAGES - 1), st.booleans()), max_size=30))
def test_images_are_found_in_their_shards_in_any_order(built, chosen):
    cache = _open(built, check_hashes=False)
    shards = np.concatenate([np.load(built / f"tokens-0000{shard}.npy") for shard in range(6)])
    index, flipped = [i for i, _ in chosen], [f for _, f in chosen]
    tokens = cache.tokens(torch.tensor(index, dtype=torch.int64), torch.tensor(flipped, dtype=torch.bool))
    assert tokens.shape == (len(chosen), 31)
    assert np.array_equal(tokens, shards[index, np.array(flipped, dtype=int)])


@given(num_images=st.integers(1, 500), shard_size=st.integers(1, 600))
def test_shards_hold_every_image_once_in_order(num_images, shard_size):
    spec = _spec(_source(1), num_images=num_images, shard_size=shard_size)
    parts = [spec.images_of(shard) for shard in range(spec.num_shards)]
    assert [index for part in parts for index in part] == list(range(num_images))
    assert all(len(part) == shard_size for part in parts[:-1]) and 0 < len(parts[-1]) <= shard_size


def test_an_index_outside_is_refused(built):
    for index in (-1, NUM_IMAGES):
        with pytest.raises(IndexError, match=r"not all in 0\.\.52"):
            _open(built).tokens(torch.tensor([0, index]), torch.zeros(2, dtype=torch.bool))


def test_the_three_kinds_of_training_images_give_the_same_batches(built):
    source, tokenizer = _source(), tiny_tokenizer()
    flips = Augmentation(random_crop=False, randaugment=None, mixup=0)
    plan = list(islice(visits(3, num_items=NUM_IMAGES, batch_size=8, seed=2), 9))
    pixels = AugmentedImages(source, PREPROCESSING, flips, num_classes=5, seed=2)
    on_the_fly = EncodedImages(pixels, tokenizer.encode).batches(plan)
    for cached, encoded in zip(_open(built, flip=0.5, seed=2).batches(plan), on_the_fly, strict=True):
        assert torch.equal(cached.tokens, encoded.tokens) and torch.equal(cached.labels, encoded.labels)
        assert cached.mix is encoded.mix is None
    in_memory = TokensInMemory(tokenizer.encode(from_uint8(source.images)), source.labels, 5).batches(plan)
    for cached, kept in zip(_open(built).batches(plan), in_memory, strict=True):
        assert torch.equal(cached.tokens, kept.tokens) and torch.equal(cached.labels, kept.labels)


def test_identities_tell_flips_and_seeds_apart(built):
    identities = {_open(built, flip=flip, seed=seed).identity for flip in (0, 0.5) for seed in (0, 1)}
    assert len(identities) == 4 and _open(built).identity in identities


# A process that builds a cache slowly and tells each batch on stdout; it is killed from outside.
BUILD = """
import sys, time
from pathlib import Path
from conftest import tiny_tokenizer
from training.test_token_cache import _build
tokenizer = tiny_tokenizer()
def encode(images):
    print("batch", flush=True)
    time.sleep(0.01)
    return tokenizer.encode(images)
_build(Path(sys.argv[1]), encode=encode)
"""


def test_a_killed_build_goes_on_to_the_same_bytes(built, tmp_path):
    tests = os.path.dirname(os.path.dirname(__file__))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([tests, *sys.path])}
    process = subprocess.Popen([sys.executable, "-c", BUILD, str(tmp_path / "tokens")], stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, text=True, env=environment)
    for count, _ in enumerate(process.stdout):
        if count == 15:
            os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    with pytest.raises(TokenCacheError, match=r"[123] of 6 shards are there"):
        _open(tmp_path / "tokens")
    (tmp_path / "tokens/.tokens-00003-left.npy").write_bytes(b"half a shard")
    encoded = []

    def encode(images):
        encoded.append(len(images))
        return tiny_tokenizer().encode(images)

    _build(tmp_path / "tokens", encode=encode)
    assert sum(encoded) < 2 * (NUM_IMAGES - SHARD_SIZE) + 1  # at least a shard was not made again
    assert _bytes(tmp_path / "tokens") == _bytes(built)


@pytest.mark.parametrize("stops", [[0], [5], [6, 7, 13], [29]])
def test_a_build_stopped_anywhere_goes_on_to_the_same_bytes(built, tmp_path, stops):
    class Stop(Exception):
        pass

    tokenizer = tiny_tokenizer()
    for stop in stops:
        calls = iter(range(stop))

        def encode(images, calls=calls):
            if next(calls, None) is None:
                raise Stop
            return tokenizer.encode(images)

        with pytest.raises(Stop):
            _build(tmp_path / "tokens", encode=encode)
    _build(tmp_path / "tokens")
    assert _bytes(tmp_path / "tokens") == _bytes(built)


def test_a_finished_cache_is_not_made_again(cache):
    before = _bytes(cache)
    _build(cache, encode=lambda images: pytest.fail("encoded again"))
    assert _bytes(cache) == before


@pytest.mark.parametrize("name", ["tokens-00002.npy", "labels.npy"])
@pytest.mark.parametrize("damage", ["bit", "truncated", "missing"])
def test_a_damaged_file_is_refused_and_made_again(cache, built, name, damage):
    path = cache / name
    data = bytearray(path.read_bytes())
    if damage == "bit":
        data[-1] ^= 1
        path.write_bytes(data)
    elif damage == "truncated":
        path.write_bytes(data[:-5])
    else:
        path.unlink()
    with pytest.raises(TokenCacheError, match=f"{name}: missing or damaged"):
        _open(cache)
    if damage != "bit":
        with pytest.raises(TokenCacheError, match=f"{name}: missing or damaged"):
            _open(cache, check_hashes=False)
    _build(cache)
    assert _bytes(cache) == _bytes(built)


@pytest.mark.parametrize(("change", "message"), [
    ({"tokenizer_sha256": "u" * 64}, "tokenizer_sha256 is tttt.*expected uuuu"),
    ({"images_sha256": "v" * 64}, "images_sha256 is .*expected vvvv"),
    ({"preprocessing": Preprocessing(image_size=16)}, "preprocessing is .*'image_size': 8.*'image_size': 16"),
    ({"num_classes": 6}, "num_classes is 5, expected 6"),
    ({"flipped": False}, "flipped is True, expected False"),
])
def test_a_cache_of_something_else_is_refused(built, change, message):
    with pytest.raises(TokenCacheError, match=f"{built} holds other tokens: {message}"):
        TokenCache(built, _spec(_source()).model_copy(update=change))


def test_a_cache_of_something_else_is_not_overwritten(cache, tmp_path):
    before = _bytes(cache)
    with pytest.raises(TokenCacheError, match="holds other tokens: tokenizer_sha256"):
        _build(cache, tokenizer_sha256="u" * 64)
    assert _bytes(cache) == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis.tex").write_text("")
    with pytest.raises(TokenCacheError, match=r"other is no token cache, but holds thesis.tex"):
        _build(tmp_path / "other")


def test_shards_of_another_size_are_read_all_the_same(built):
    assert len(TokenCache(built, _spec(_source(), shard_size=7))) == NUM_IMAGES


def test_no_cache_a_damaged_manifest_and_missing_mirror_images_are_refused(cache, tmp_path):
    with pytest.raises(TokenCacheError, match=r"manifest.json: no such token cache"):
        _open(tmp_path / "nowhere")
    _build(tmp_path / "plain", flipped=False)
    with pytest.raises(ValueError, match=r"has no mirror images, which flip = 0.5 needs"):
        TokenCache(tmp_path / "plain", _spec(_source(), flipped=False), flip=0.5)
    whole = json.loads((cache / "manifest.json").read_text())
    for damaged in ('{"spec": 1}', "[" * 10 ** 5, "\xff", "7", json.dumps(whole | {"shards_sha256": [1]}),
                    json.dumps(whole | {"spec": whole["spec"] | {"num_images": 10 ** 400}}),
                    json.dumps(whole | {"spec": whole["spec"] | {"num_images": str(NUM_IMAGES)}})):
        (cache / "manifest.json").write_text(damaged, "latin-1")
        with pytest.raises(TokenCacheError, match="manifest.json: not the manifest of a token cache") as error:
            _open(cache)
        assert len(str(error.value).splitlines()) == 1 and len(str(error.value)) < 1000
    (cache / "manifest.json").write_text(json.dumps(whole))
    for content in (b"\x93NUMPY\x01\x00\x10\x00{'descr' '|u1'}}}]\n", b"PK\x05\x06" + bytes(18), b"\x93NUMPY\x09\x00"):
        (cache / "tokens-00000.npy").write_bytes(content)
        with pytest.raises(TokenCacheError, match="tokens-00000.npy: missing or damaged"):
            _open(cache, check_hashes=False)


HOLDER = """
import sys, time
from pathlib import Path
from varient.files import only_writer
with only_writer(Path(sys.argv[1]), OSError):
    print("held", flush=True)
    time.sleep(60)
"""


def test_two_builds_do_not_write_one_cache(tmp_path):
    other = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "tokens")], stdout=subprocess.PIPE, cwd=ROOT)
    other.stdout.readline()
    with pytest.raises(TokenCacheError, match=f"another process is writing this cache: process {other.pid} on "):
        _build(tmp_path / "tokens")
    other.kill()
    other.communicate()
    _build(tmp_path / "tokens")


@pytest.mark.parametrize(("changes", "message"), [
    ({"vocab_size": 4}, r"gives 31 tokens in \d+\.\.\d+ for an image; the cache is for 31 in 0\.\.3"),
    ({"tokens_per_image": 30}, "gives 31 tokens .*the cache is for 30"),
    ({"images_sha256": "v" * 64}, "these are not the 53 images"),
    ({"num_images": 52}, "these are not the 52 images"),
    ({"num_classes": 3}, "label 3 of image 3"),
])
def test_a_build_that_its_description_does_not_fit_is_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        _build(tmp_path / "tokens", **changes)


def test_unreadable_images_of_a_folder_stand_in_the_manifest(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "data/train" / name).mkdir(parents=True)
        for number in range(3):
            pixels = np.random.default_rng(number).integers(0, 256, (12, 10, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"data/train/{name}/{number}.png")
    (tmp_path / "data/train/b/1.png").write_bytes(b"broken")
    folder = ImageFolder(tmp_path / "data", "train", num_classes=2, index=tmp_path / "index.npz",
                         skip_log=tmp_path / "skipped.jsonl")
    spec = _spec(folder, num_classes=2, shard_size=2, preprocessing=Preprocessing(image_size=8))
    build_token_cache(tmp_path / "tokens", folder, spec, tiny_tokenizer().encode, workers=2, at_once=2)
    cache = TokenCache(tmp_path / "tokens", spec)
    assert [(skip.path, skip.replacement) for skip in cache.skips] == [("b/1.png", "b/2.png")]
    tokens = cache.tokens(torch.arange(6), torch.zeros(6, dtype=torch.bool))
    assert torch.equal(tokens[4], tokens[5])
    batch = next(iter(cache.batches([Visit(0, torch.tensor([5, 0]))])))
    assert batch.labels.tolist() == [1, 0]
