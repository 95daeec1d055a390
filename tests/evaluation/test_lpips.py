"""LPIPS from a local file in the format of torchvision's AlexNet, with random weights, and nothing downloaded."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from varient.archive import Archive, write_archive
from varient.evaluation.extractors import ExtractorError
from varient.evaluation.fidelity import compare_files
from varient.evaluation.inputs import open_samples
from varient.evaluation.lpips import LEAST_SIDE, Lpips
from varient.evaluation.pairs import PairError
from varient.files import sha256_of

torchmetrics = pytest.importorskip("torchmetrics", reason="needs torchmetrics")
pytestmark = pytest.mark.usefixtures("no_network")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A state dict as torchvision's, 244 MB."""
    from torchvision.models import alexnet

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save(alexnet(weights=None).state_dict(), path)
    yield path
    path.unlink()


@pytest.fixture(scope="module")
def lpips(weights):
    return Lpips(weights, sha256=sha256_of(weights))


def _pair(side=72):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 3, side, side), np.uint8)
    return map(torch.from_numpy, pixels)


def _by_hand(weights, a, b):
    """The mean over positions of the weighted squared differences of normalised features, summed over five layers."""
    state = torch.load(weights, weights_only=True)
    folder = Path(torchmetrics.__file__).parent / "functional/image/lpips_models"
    linear = torch.load(folder / "alex.pth", map_location="cpu", weights_only=True)
    shift, scale = (torch.tensor(values)[:, None, None] for values in ([-0.030, -0.088, -0.188], [0.458, 0.448, 0.450]))
    layers = [(0, 4, 2), (3, 1, 2), (6, 1, 1), (8, 1, 1), (10, 1, 1)]  # number, stride, padding
    x, total = (torch.cat([a, b]) / 127.5 - 1 - shift) / scale, 0
    for at, (number, stride, padding) in enumerate(layers):
        if number in (3, 6):
            x = F.max_pool2d(x, 3, 2)
        x = F.relu(F.conv2d(x, state[f"features.{number}.weight"], state[f"features.{number}.bias"], stride, padding))
        first, second = (half / (half.square().sum(1, keepdim=True) + 1e-8).sqrt() for half in x.chunk(2))
        total = total + F.conv2d((first - second).square(), linear[f"lin{at}.model.1.weight"]).mean((1, 2, 3))
    return total


@pytest.mark.parametrize("side", [64, LEAST_SIDE])
def test_lpips_is_its_definition_with_the_files_network(weights, lpips, side):
    a, b = _pair(side)
    found = lpips(a, b)
    assert found.shape == (3,) and found.min() > 1e-3
    torch.testing.assert_close(found, _by_hand(weights, a.float(), b.float()), rtol=1e-4, atol=0)
    assert lpips(a, a).tolist() == [0, 0, 0] and lpips.sha256 == sha256_of(weights)


def test_records_hold_lpips_where_its_weights_are_given(lpips, tmp_path):
    for name, images in zip("ab", _pair(), strict=True):
        archive = Archive(images.numpy(), np.zeros(3, int), np.arange(3), {"system": name})
        write_archive(tmp_path / f"{name}.npz", archive)
    sets = [open_samples([tmp_path / f"{name}.npz"]) for name in "ab"]
    record = compare_files(*sets, tmp_path / "record.json", lpips=lpips)
    values = lpips(*_pair()).double()
    assert record.lpips_sha256 == lpips.sha256
    assert record.systems[0].lpips == pytest.approx(float(values.mean()))
    assert record.systems[0].lpips_sd == pytest.approx(float(values.std()) / 3 ** 0.5)
    small = Archive(np.zeros((3, 3, LEAST_SIDE - 1, LEAST_SIDE - 1), np.uint8), np.zeros(3, int), np.arange(3), {})
    write_archive(tmp_path / "small.npz", small)
    small = open_samples([tmp_path / "small.npz"])
    with pytest.raises(PairError, match="too small for LPIPS"):
        compare_files(small, small, tmp_path / "other.json", lpips=lpips)


def test_another_file_is_refused_in_one_line(weights, tmp_path):
    torch.save({"features.0.weight": torch.zeros(2)}, tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("AlexNet")
    for path, digest, named in ((tmp_path / "none.pth", None, "none.pth: no such file"),
                                (weights, None, "--lpips-sha256"),
                                (tmp_path / "other.pth", sha256_of(tmp_path / "other.pth"), "other.pth: not torch"),
                                (tmp_path / "text.pth", None, "text.pth")):
        with pytest.raises(ExtractorError) as refused:
            Lpips(path, sha256=digest)
        assert named in str(refused.value) and "alexnet-owt-7be5be79.pth" in str(refused.value)
        assert len(str(refused.value).splitlines()) == 1


def test_torchs_own_cache_is_where_it_was(weights, lpips):
    assert "weights" not in torch.hub.get_dir() and Path(torch.hub.get_dir()).name == "hub"
