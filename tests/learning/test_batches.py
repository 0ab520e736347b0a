"""Feeding: batches hold the right windows, from files and from a device's memory, and continue after an interruption."""

import os
import sys
import time
from itertools import combinations

import numpy as np
import pytest
import torch

from regnet.errors import InputError
from regnet.learning.batches import DeviceVolumes, Feed, Prefetch, SyntheticPairs, flip
from regnet.synthesis.samples import MappedVolumes, SamplePool, Samples, normalize

SHAPES = [(70, 60, 58), (64, 40, 75), (70, 60, 58)]
SETTINGS = {"batch": 11, "flips": True, "noise_sd": 5}


@pytest.fixture
def volumes(tmp_path, rng):
    """Files of three volumes, one of them narrower than a window."""
    paths = [tmp_path / f"{number}.npy" for number in range(len(SHAPES))]
    for path, shape in zip(paths, SHAPES, strict=True):
        np.save(path, rng.integers(-1024, 1500, shape).astype(np.int16))
    return paths


@pytest.fixture
def pool(volumes, tmp_path, rng):
    """Two pairs of 15 blocks of 2^3 outputs: volumes 0 and 2, and volume 1 with itself."""
    tables = [tmp_path / f"samples_{number}.npz" for number in range(2)]
    for path, shape in zip(tables, SHAPES, strict=False):
        displacements = rng.normal(0, 3, (15, 2, 2, 2, 3)).astype(np.float32)
        Samples(rng.integers(0, shape[::-1], (15, 3)).astype(np.int32), displacements).save(path)
    return SamplePool(tables, volumes[:2], [volumes[2], volumes[1]], (-1000, 400))


def same(batch, expected):
    return all(torch.equal(*tensors) for tensors in zip(batch, expected, strict=True))


@pytest.mark.parametrize("block", [1, 3])
@pytest.mark.parametrize("on_device", [False, True])
def test_windows_are_the_voxels_around_their_centres(volumes, rng, block, on_device):
    mapped = MappedVolumes(volumes)
    source = DeviceVolumes(mapped, "cpu") if on_device else mapped
    numbers = rng.integers(0, 3, 40)
    centres = np.array([rng.integers(0, SHAPES[number][::-1]) for number in numbers], np.int32)
    centres[:2] = [30, 30, 30], [28, 28, 30]
    windows = np.asarray(source.windows(numbers, centres, block))
    side = 52 + 2 * block
    assert windows.shape == (40, side, side, side)
    assert windows.dtype == np.int16
    for window, number, centre in zip(windows, numbers, centres, strict=True):
        volume = np.pad(np.load(volumes[number]), side, mode="edge")
        z, y, x = centre[::-1] + side // 2
        assert np.array_equal(window, volume[z : z + side, y : y + side, x : x + side])


def test_a_batch_is_normalized_windows_and_their_targets(pool, rng):
    chosen = rng.permutation(len(pool))[:20]
    fixed, moving, targets = Feed(pool).cut(chosen)
    raw = Feed(pool).windows(chosen)
    assert fixed.shape == moving.shape == (20, 1, 56, 56, 56)
    assert torch.equal(fixed, normalize(raw[0].float(), (-1000, 400)))
    assert torch.equal(moving, normalize(raw[1].float(), (-1000, 400)))
    # Only the second pair is one volume with itself.
    assert [torch.equal(*pair) for pair in zip(fixed, moving, strict=True)] == (pool.pair[chosen] == 1).tolist()
    expected = [np.moveaxis(pool.displacements[number], -1, 0) for number in chosen]
    assert np.array_equal(targets, np.stack(expected))


def test_noise_has_the_given_sd_and_is_different_in_every_window(pool):
    settings = {**SETTINGS, "batch": len(pool), "flips": False}
    noisy = SyntheticPairs(Feed(pool), settings, np.random.default_rng(1)).batch()
    clean = Feed(pool).cut(np.arange(len(pool)))
    noise = torch.cat([noisy[0] - clean[0], noisy[1] - clean[1]]).flatten(1)
    assert torch.equal(noisy[2], clean[2])
    torch.testing.assert_close(noise.std(dim=1), torch.full((2 * len(pool),), 5 / 500), rtol=0.02, atol=0)
    assert noise.mean(dim=1).abs().max() < 2e-4
    correlation = torch.corrcoef(noise) - torch.eye(len(noise))
    assert correlation.abs().max() < 0.05


def test_batches_are_mirrored_along_any_axes(pool):
    pairs = SyntheticPairs(Feed(pool), {**SETTINGS, "batch": len(pool), "noise_sd": 0}, np.random.default_rng(1))
    clean = Feed(pool).cut(np.arange(len(pool)))
    mirrored = [flip(clean, axes) for count in range(4) for axes in combinations(range(3), count)]
    drawn = [[same(batch, candidate) for candidate in mirrored].index(True) for batch in (pairs.batch() for _ in range(12))]
    assert len(set(drawn)) > 3


def test_how_many_samples_are_cut_at_once_changes_nothing(pool, monkeypatch):
    batch = SyntheticPairs(Feed(pool), SETTINGS, np.random.default_rng(7)).batch()
    monkeypatch.setattr("regnet.learning.batches.CPU_CHUNK", 3)
    assert same(SyntheticPairs(Feed(pool), SETTINGS, np.random.default_rng(7)).batch(), batch)


@pytest.mark.parametrize("wrap", [lambda source: source, Prefetch], ids=["as it is", "prefetched"])
def test_batches_continue_from_a_state_as_if_never_interrupted(pool, wrap):
    def pairs():
        return SyntheticPairs(Feed(pool), SETTINGS, np.random.default_rng(7))

    alone = pairs()
    # Of 30 samples the third batch of 11 takes the rest of one order and the beginning of the next.
    first, *later = (alone.batch() for _ in range(4))
    source = pairs()
    interrupted = wrap(source)
    assert same(interrupted.batch(), first)
    waited = time.monotonic()
    while wrap is Prefetch and len(source.order) > 30 - 2 * 11 and time.monotonic() - waited < 30:
        time.sleep(0.01)
    state = interrupted.state_dict()
    resumed = wrap(pairs())
    resumed.load_state_dict(state)
    assert all(same(resumed.batch(), batch) for batch in later)
    assert not same(later[0], first)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_was_read_from_files_does_not_stay_in_the_memory_of_the_process(tmp_path, rng):
    paths = [tmp_path / f"{number}.npy" for number in range(12)]
    for path in paths:
        np.lib.format.open_memmap(path, mode="w+", dtype=np.int16, shape=(200, 200, 200)).flush()

    def file_pages():
        with open("/proc/self/statm", encoding="utf-8") as file:
            return int(file.read().split()[2]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    source = MappedVolumes(paths)
    before = file_pages()
    source.windows(np.arange(12).repeat(2), rng.integers(30, 170, (24, 3)), 1)
    assert file_pages() - before < 20
    DeviceVolumes(source, "cpu")
    assert file_pages() - before < 20
    # This measure does see memory that is not released.
    kept = [np.load(path, mmap_mode="r") for path in paths]
    assert not any(volume.any() for volume in kept)
    assert file_pages() - before > 150


def test_files_that_do_not_fit_are_named(volumes, tmp_path):
    damaged, wrong = tmp_path / "damaged.npy", tmp_path / "wrong.npy"
    damaged.write_bytes(volumes[0].read_bytes()[:1000])
    np.save(wrong, np.zeros((60, 60, 60), np.float32))
    table = tmp_path / "samples.npz"
    Samples(np.array([[57, 59, 69]], np.int32), np.zeros((1, 1, 1, 1, 3), np.float32)).save(table)
    window = (-1000, 400)
    assert len(SamplePool([table], [volumes[0]], [volumes[2]], window)) == 1
    with pytest.raises(InputError, match=r"damaged\.npy: cannot be read as a volume"):
        SamplePool([table], [damaged], [volumes[0]], window)
    with pytest.raises(InputError, match=r"wrong\.npy: found float32 of shape \(60, 60, 60\), expected an int16 volume"):
        SamplePool([table], [volumes[0]], [wrong], window)
    with pytest.raises(InputError, match=r"1\.npy: found shape \(64, 40, 75\), expected \(70, 60, 58\) as in .*0\.npy"):
        SamplePool([table], [volumes[0]], [volumes[1]], window)
