"""A copy of the project in a folder of its own, and its workflow run there."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from conftest import ROOT

from varient.training.fashion_mnist import SHA256 as FASHION_MNIST

BIN = Path(sys.executable).parent
"""Programs of the environment that runs the tests; PATH need not hold it."""
SMOKE = ["--configfile", "workflow/config/smoke.yaml"]
RELEASED = ("vae_ch160v4096z32.pth", "var_d30.pth", "var_d16.pth", "drafter_6.pth", "refiner_6.pth",
            "DiT-XL-2-256x256.pt", "c2i_XXL_384.pt", "vq_ds16_c2i.pt",
            "weights-inception-2015-12-05-6726825d.pth", "VIRTUAL_imagenet256_labeled.npz",
            "sd-vae-ft-ema/config.json", "sd-vae-ft-ema/diffusion_pytorch_model.safetensors")
"""Files that the configs of ImageNet name, in weights/."""


def snakemake(folder: Path, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess:
    """Run the workflow of a copy of the project, with that copy's code."""
    environment = os.environ | {"PYTHONPATH": str(folder)} | variables
    return subprocess.run([BIN / "snakemake", *arguments], cwd=folder, env=environment, capture_output=True, text=True)


def copy_to(folder: Path) -> Path:
    """The project's files, without results; Fashion-MNIST is looked for in them."""
    folder.mkdir(exist_ok=True)
    for name in ("Snakefile", "environment.yml", "environment.post-deploy.sh", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    for name in ("varient", "baselines", "workflow"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    fashion = folder / "workflow/config/fashion.yaml"
    fashion.write_text(fashion.read_text().replace("/usr/share/datasets/fashion-mnist", "data/fashion-mnist"))
    return folder


def give_user_files(folder: Path, *splits: str) -> None:
    """The user's files, which the paper's experiment starts from, and folders of ImageNet's classes."""
    for released in RELEASED:
        (folder / "weights" / released).parent.mkdir(parents=True, exist_ok=True)
        (folder / "weights" / released).touch()
    shutil.rmtree(folder / "data", ignore_errors=True)
    for split in splits:
        for number in range(1000):
            (folder / f"data/imagenet/{split}/n{number:08d}").mkdir(parents=True)
            (folder / f"data/imagenet/{split}/n{number:08d}/0.JPEG").touch()
    (folder / "data/fashion-mnist").mkdir(parents=True)
    for name in FASHION_MNIST:
        (folder / f"data/fashion-mnist/{name}.gz").touch()
