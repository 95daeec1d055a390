"""Export of samples for other tools: an ADM .npz, or a folder of PNGs."""

from __future__ import annotations

import json
import logging
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from varient.evaluation.image_source import DIGEST_BYTES, ImageSource, content_hash, digests_of
from varient.evaluation.inputs import manifest_path, open_samples
from varient.evaluation.scores import SEED, fixed_permutation
from varient.files import atomic_folder, atomic_path, check_writable, sha256_of, write_text
from varient.npz import SampleError

log = logging.getLogger(__name__)

_BATCH = 64
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
"""No time stamps: exporting again gives the same bytes (NumPy does the same)."""


def export_adm(archives: Sequence[Path], output: Path, seed: int = SEED) -> dict:
    """Write all shards of a run as one ADM sample batch: arr_0 (N, S, S, 3) uint8 and labels arr_1 (N,) int64.

    Image j of arr_0 is image ``fixed_permutation(N, seed)[j]`` of the run: ADM's evaluator computes IS over blocks of
    5000 consecutive images, and images sorted by class would bias it.  The file is streamed, 64 images at a time.  A
    manifest is written beside it (`manifest_path`): permutation, hashes of shards and images, origin.

    Returns:
        The manifest.

    Raises:
        SampleError: shards are missing, damaged, of different runs, or not sample archives.
        OutputError: the file could not be written; nothing is left behind.
    """
    check_writable(output)
    source, labels = _complete_archives(archives)
    order = fixed_permutation(len(source), seed)
    digests = np.empty((len(source), DIGEST_BYTES), np.uint8)
    with atomic_path(output) as temporary:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as file:
            shape = (len(source), source.side, source.side, 3)
            with _member(file, "arr_0", shape, np.dtype(np.uint8)) as member:
                for at in range(0, len(order), _BATCH):
                    part = order[at:at + _BATCH]
                    images = np.concatenate([source.batch(int(index), int(index) + 1) for index in part])
                    digests[part] = digests_of(images)
                    member.write(np.ascontiguousarray(images.transpose(0, 2, 3, 1)).data)
            crc = file.getinfo("arr_0.npy").CRC
            ordered = labels[order].astype("<i8")
            with _member(file, "arr_1", ordered.shape, ordered.dtype) as member:
                member.write(ordered.data)
        manifest = _manifest(source, labels, digests) | {
            "permutation_seed": seed, "order": f"arr_0[j] is image RandomState({seed}).permutation({len(source)})[j]",
            "arr_0_crc32": crc}
        # Written before the .npz is renamed: if the process dies in between, the CRC shows that the manifest is of
        # another file, while a missing manifest would not be noticed.
        write_text(manifest_path(output), _json(manifest))
    return manifest


def export_png(archives: Sequence[Path], folder: Path) -> dict:
    """Write all shards of a run as PNGs ``{class}_{index}.png`` with a manifest.json.

    The folder is renamed to its final name once it is complete.  Sorted by name, its images are sorted by class: IS
    needs a permutation, which the protocols here apply.

    Returns:
        The manifest.

    Raises:
        SampleError: as `export_adm`, or a folder that is not empty.
        OutputError: the files could not be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SampleError(f"{folder}: exists and is not empty")
    check_writable(folder / "manifest.json")
    source, labels = _complete_archives(archives)
    with atomic_folder(folder) as temporary:
        digests = []
        for number, image in enumerate(_each(source)):
            digests.append(digests_of(image[None]))
            # Level 1 is three times as fast as the default and writes about a tenth more bytes; PNG is lossless.
            Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(
                temporary / f"{labels[number]:04d}_{source.indices[number]:06d}.png", compress_level=1)
        manifest = _manifest(source, labels, np.concatenate(digests))
        write_text(temporary / "manifest.json", _json(manifest))
    return manifest


def _complete_archives(archives: Sequence[Path]) -> tuple[ImageSource, np.ndarray]:
    """The images of sample archives and their classes (N,), int64."""
    source = open_samples(archives)
    if source.kind != "archives" or source.labels is None:
        raise SampleError(f"{source.place}: not sample archives of varient")
    source.require_complete()
    for remark in source.remarks:
        log.warning("%s", remark)
    return source, source.labels


def _each(source: ImageSource) -> Iterator[np.ndarray]:
    return (image for images in source.batches(_BATCH) for image in images)


def _member(file: zipfile.ZipFile, name: str, shape: tuple[int, ...], dtype: np.dtype) -> IO[bytes]:
    """An open .npy member of an .npz with its header written."""
    member = file.open(zipfile.ZipInfo(f"{name}.npy", _ZIP_EPOCH), "w", force_zip64=True)
    np.lib.format.write_array_header_1_0(
        member, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape})
    return member


def _manifest(source: ImageSource, labels: np.ndarray, digests: np.ndarray) -> dict:
    """The manifest of both formats; images_sha256 covers the images in order of their indices."""
    return {"num_images": len(source), "image_size": source.side, "num_classes": len(np.unique(labels)),
            "images_sha256": content_hash(digests), "origin": source.origin,
            "shards": [{"file": path.name, "sha256": sha256_of(path)} for path in source.files]}


def _json(manifest: dict) -> str:
    return json.dumps(manifest, indent=1, sort_keys=True) + "\n"
