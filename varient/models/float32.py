"""float32 on a GPU: that of the CPU, or the 10 bits of TF32."""

from __future__ import annotations

import torch


def keep_float32() -> None:
    """Have cuDNN convolve float32 in float32 from now on.

    Its default there is TF32, which keeps 10 bits of 23: a token is the nearest of 4096 codes, and hangs on the last of
    them, so a tokenizer would read other tokens than on a CPU.  torch's products of float32 matrices are exact already.
    """
    torch.backends.cudnn.allow_tf32 = False
