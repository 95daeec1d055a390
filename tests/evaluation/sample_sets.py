"""Small sets of samples in each format that is read, and what a refusal looks like."""

import numpy as np
import pytest
from PIL import Image

from varient.archive import Archive, write_archive
from varient.evaluation.inputs import SampleError, open_samples

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 3, 8, 8), dtype=np.uint8)
LABELS = np.arange(12) % 3


def write_shard(path, begin=0, end=12, total=12, **origin):
    """An archive of some of the images."""
    write_archive(path, Archive(IMAGES[begin:end], LABELS[begin:end], np.arange(begin, end),
                                {"system": "var-d16", "sampling": {"num_images": total}, **origin}))
    return path


def write_pngs(path, images=IMAGES, labels=LABELS, name="{label}_{number}.png"):
    """A folder of PNG files, with class folders where the name has them."""
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        file = path / name.format(label=label, number=number)
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.transpose(1, 2, 0)).save(file)
    return path


def write_adm(path, save=np.savez, **more):
    """All images in the format of ADM's sample batches."""
    save(path, arr_0=IMAGES.transpose(0, 2, 3, 1), **({"arr_1": LABELS} | more))
    return path


def assert_refused(match, *paths, read=True):
    """That no set can be opened, or read, and one line says why."""
    with pytest.raises(SampleError, match=match) as caught:
        source = open_samples(paths)
        if read:
            source.batch(0, len(source))
    assert "\n" not in str(caught.value)
