"""The diffusion process of DiT: linear noise schedule, learned variance, respaced steps, the hybrid loss.

Written from the equations of DDPM (arXiv 2006.11239) and Improved DDPM (arXiv 2102.09672).  diffusers' scheduler
draws the noise of a step itself, for a whole batch; ours is drawn per image, and training needs the posteriors anyway.

Shapes: B images, C channels, H x W positions; T steps.  A *step* is 0..T-1 in the sampling process, a *time* is
0..999 in the process that the network was trained on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

TRAIN_STEPS = 1000
FIRST_BETA, LAST_BETA = 1e-4, 0.02


@dataclass(frozen=True)
class Reverse:
    """Predicted Gaussian p(x_{t-1} | x_t), and the predicted x_0; all tensors (B, C, H, W)."""

    mean_BCHW: Tensor
    log_variance_BCHW: Tensor
    x0_BCHW: Tensor


class Diffusion:
    """A process of T steps that visits T of the 1000 times.

    Attributes:
        time_T: the network's time of each step, int64, on the CPU.
        beta_T: variance that a step adds, float64.
    """

    def __init__(self, steps: int = TRAIN_STEPS, device: torch.device | str = "cpu") -> None:
        """The process for images on a device: its tables lie there, so that no step waits for them.

        Raises:
            ValueError: steps outside 2..1000.
        """
        self.time_T = respaced_times(steps)
        betas = torch.linspace(FIRST_BETA, LAST_BETA, TRAIN_STEPS, dtype=torch.float64)
        self._signal_T = (1 - betas).cumprod(0)[self.time_T].to(device)
        signal_before_T = torch.cat([torch.ones_like(self._signal_T[:1]), self._signal_T[:-1]])
        self.beta_T = 1 - self._signal_T / signal_before_T
        noise_T = 1 - self._signal_T
        # Posterior q(x_{t-1} | x_t, x_0): DDPM, Eq. 7.
        self._x0_share_T = self.beta_T * signal_before_T.sqrt() / noise_T
        self._xt_share_T = (1 - signal_before_T) * (1 - self.beta_T).sqrt() / noise_T
        variance_T = self.beta_T * (1 - signal_before_T) / noise_T
        variance_T[0] = variance_T[1]  # it is 0 there, and its logarithm is needed
        self._log_posterior_T = variance_T.log()

    def noised(self, x0_BCHW: Tensor, step_B: Tensor, noise_BCHW: Tensor) -> Tensor:
        """x_t of clean images."""
        signal = self._at(self._signal_T.sqrt(), step_B)
        return signal * x0_BCHW + self._at((1 - self._signal_T).sqrt(), step_B) * noise_BCHW

    def posterior(self, x0_BCHW: Tensor, xt_BCHW: Tensor, step_B: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (B, C, H, W) and log variance (B, 1, 1, 1) of q(x_{t-1} | x_t, x_0)."""
        mean_BCHW = (self._at(self._x0_share_T, step_B) * x0_BCHW
                     + self._at(self._xt_share_T, step_B) * xt_BCHW)
        return mean_BCHW, self._at(self._log_posterior_T, step_B)

    def reverse(self, prediction: Tensor, xt_BCHW: Tensor, step_B: Tensor) -> Reverse:
        """Reverse distribution from the network's output (B, 2C, H, W).

        The second half of the output interpolates between the smallest (-1) and the largest (1) log variance (Improved
        DDPM, Eq. 15).
        """
        noise_BCHW, mix_BCHW = prediction.chunk(2, dim=1)
        x0_BCHW = (self._at((1 / self._signal_T).sqrt(), step_B) * xt_BCHW
                   - self._at((1 / self._signal_T - 1).sqrt(), step_B) * noise_BCHW)
        mean_BCHW, smallest = self.posterior(x0_BCHW, xt_BCHW, step_B)
        share_BCHW = (mix_BCHW + 1) / 2
        largest = self._at(self.beta_T.log(), step_B)
        return Reverse(mean_BCHW, share_BCHW * largest + (1 - share_BCHW) * smallest, x0_BCHW)

    def losses(self, prediction: Tensor, x0_BCHW: Tensor, step_B: Tensor, noise_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Both parts of the hybrid loss for each image: squared error (B,), variational bound in bits a value (B,).

        The bound trains only the variance: the predicted noise is detached in it (Improved DDPM, Sec. 3.1).  The
        authors' code adds both parts with weight 1.
        """
        xt_BCHW = self.noised(x0_BCHW, step_B, noise_BCHW)
        predicted_BCHW, mix_BCHW = prediction.chunk(2, dim=1)
        squared_B = (predicted_BCHW - noise_BCHW).square().mean(dim=(1, 2, 3))
        frozen = torch.cat([predicted_BCHW.detach(), mix_BCHW], dim=1)
        reverse = self.reverse(frozen, xt_BCHW, step_B)
        mean_BCHW, log_variance = self.posterior(x0_BCHW, xt_BCHW, step_B)
        kl_BCHW = _gaussian_kl(mean_BCHW, log_variance, reverse.mean_BCHW, reverse.log_variance_BCHW)
        last_BCHW = -_log_likelihood_of_bytes(x0_BCHW, reverse.mean_BCHW, reverse.log_variance_BCHW)
        nats_BCHW = torch.where(step_B.view(-1, 1, 1, 1) == 0, last_BCHW, kl_BCHW)
        return squared_B, nats_BCHW.mean(dim=(1, 2, 3)) / math.log(2)

    def _at(self, table_T: Tensor, step_B: Tensor) -> Tensor:
        """Entries of a table, (B, 1, 1, 1), float32."""
        return table_T[step_B].float().view(-1, 1, 1, 1)


def respaced_times(steps: int) -> Tensor:
    """``steps`` of the 1000 times, evenly from the first to the last, ascending (Improved DDPM, Sec. 4).

    Raises:
        ValueError: fewer than 2 or more than 1000.
    """
    if not 2 <= steps <= TRAIN_STEPS:
        raise ValueError(f"{steps} steps: the process has 2..{TRAIN_STEPS}")
    stride, position, times = (TRAIN_STEPS - 1) / (steps - 1), 0.0, []
    for _ in range(steps):  # summed, not multiplied, for the same rounding as in the authors' code
        times.append(round(position))
        position += stride
    return torch.tensor(times)


def _gaussian_kl(mean: Tensor, log_variance: Tensor, other_mean: Tensor, other_log_variance: Tensor) -> Tensor:
    """KL of two Gaussians for each value, in nats."""
    return 0.5 * (other_log_variance - log_variance + (log_variance - other_log_variance).exp()
                  + (mean - other_mean).square() * (-other_log_variance).exp() - 1)


def _log_likelihood_of_bytes(x_BCHW: Tensor, mean_BCHW: Tensor, log_variance_BCHW: Tensor) -> Tensor:
    """Log probability of the byte that x stands for, the bins at both ends reaching to infinity (DDPM, Eq. 13)."""
    inverse_scale = (-0.5 * log_variance_BCHW).exp()
    above = _normal_cdf(inverse_scale * (x_BCHW - mean_BCHW + 1 / 255))
    below = _normal_cdf(inverse_scale * (x_BCHW - mean_BCHW - 1 / 255))
    probability = torch.where(x_BCHW < -0.999, above, torch.where(x_BCHW > 0.999, 1 - below, above - below))
    return probability.clamp(min=1e-12).log()


def _normal_cdf(x: Tensor) -> Tensor:
    """Page's approximation, which the authors' losses use; an exact one differs by up to 3e-4."""
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)))
