"""Machines whose GPUs do nothing: builds the stand-ins for CUDA's libraries and starts Python on them.

What such a machine shows and what it cannot show is said in docs/cuda.md.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def what_is_missing() -> str | None:
    """Why the stand-ins cannot be built here, or None."""
    if torch.version.cuda is None:
        return f"needs a torch built for CUDA (here is {torch.__version__})"
    if shutil.which("gcc") is None:
        return "needs gcc"
    if not (_cuda_headers() / "cuda_runtime_api.h").is_file():
        return "needs CUDA's headers, which come with triton"
    return None


def _cuda_headers() -> Path:
    found = importlib.util.find_spec("triton")
    return Path(found.origin).parent / "backends/nvidia/include" if found and found.origin else Path("/nowhere")


@dataclass(frozen=True)
class NullMachine:
    """A machine with null GPUs.

    Attributes:
        folder: of the built libraries and of the processes that took memory.
    """

    folder: Path

    @classmethod
    def build(cls, folder: Path) -> NullMachine:
        """Compile the stand-ins into a folder."""
        libraries = {"nullgpu.so": ("runtime.c", "libraries.c"), "libcuda.so.1": ("driver.c",),
                     "libnvidia-ml.so.1": ("nvml.c",)}
        for library, sources in libraries.items():
            subprocess.run(["gcc", "-O1", "-shared", "-fPIC", f"-I{_cuda_headers()}", "-o", folder / library,
                            *(HERE / source for source in sources), "-lpthread"], check=True)
        (folder / "processes").mkdir(exist_ok=True)
        return cls(folder)

    def environment(self, gpus: int = 1, **changes: str) -> dict[str, str]:
        """Variables under which a process sees so many null GPUs."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("CUDA_", "VARIENT_"))}
        path = os.pathsep.join(filter(None, [str(ROOT), str(HERE), inherited.get("PYTHONPATH")]))
        return inherited | {
            "LD_PRELOAD": str(self.folder / "nullgpu.so"), "LD_LIBRARY_PATH": str(self.folder), "PYTHONPATH": path,
            "NULLGPU_COUNT": str(gpus), "NULLGPU_PROCESSES": str(self.folder / "processes"), "OMP_NUM_THREADS": "1",
            # cuDNN's newer interface compiles graphs for a real device; the older one and flash attention do not.
            "TORCH_CUDNN_V8_API_DISABLED": "1", "TORCH_CUDNN_SDPA_DEPRIORITIZED": "1"} | changes

    def start(self, *arguments: object, gpus: int = 1, **changes: str) -> subprocess.CompletedProcess:
        """Run Python with arguments on the machine; output is captured, failure is the caller's to see."""
        return subprocess.run([sys.executable, "-W", "ignore", *map(str, arguments)], capture_output=True, text=True,
                              cwd=ROOT, env=self.environment(gpus, **changes), timeout=600)
