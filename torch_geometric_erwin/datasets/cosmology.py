r"""A flat ΛCDM universe: background, growth and linear power spectrum."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Cosmology:
    r"""A flat universe of matter and a cosmological constant. Lengths are in
    Mpc/h, wave numbers in h/Mpc.

    Args:
        omega_m: Matter density in units of the critical density.
        omega_b: Baryon density in the same units.
        h: Hubble constant in units of 100 km/s/Mpc.
        n_s: Slope of the primordial power spectrum.
        sigma_8: Root mean square of linear density fluctuations today in
            spheres of 8 Mpc/h.
    """
    omega_m: float = 0.3175
    omega_b: float = 0.049
    h: float = 0.6711
    n_s: float = 0.9624
    sigma_8: float = 0.834

    def matter_fraction(self, z: float) -> float:
        r"""Returns :math:`\Omega_m` at redshift :math:`z`."""
        return self.omega_m * (1 + z)**3 / self.expansion(z)**2

    def expansion(self, z: float) -> float:
        r"""Returns :math:`H(z) / H_0`."""
        return math.sqrt(self.omega_m * (1 + z)**3 + 1 - self.omega_m)

    def growth(self, z: float) -> float:
        r"""Returns how far linear fluctuations have grown, 1 today, in the
        approximation of Carroll, Press and Turner (1992), equation 29.
        """
        return self._unscaled_growth(z) / self._unscaled_growth(0.)

    def _unscaled_growth(self, z: float) -> float:
        m = self.matter_fraction(z)
        rest = m**(4 / 7) - (1 - m) + (1 + m / 2) * (1 + (1 - m) / 70)
        return 2.5 * m / rest / (1 + z)

    def growth_rate(self, z: float, order: int = 1) -> float:
        r"""Returns :math:`f = d \ln D / d \ln a`: :math:`\Omega_m^{5/9}`,
        and :math:`2 \Omega_m^{6/11}` at second order (Bouchet et al. 1995).
        """
        m = self.matter_fraction(z)
        return m**(5 / 9) if order == 1 else 2 * m**(6 / 11)

    def velocity_unit(self, z: float) -> float:
        r"""Returns :math:`a H` in km/s per Mpc/h: what to multiply a growing
        displacement :math:`f \Psi` by for its peculiar velocity.
        """
        return 100 * self.expansion(z) / (1 + z)

    def transfer(self, k: Tensor) -> Tensor:
        r"""Computes the transfer function of Eisenstein and Hu (1998),
        equations 26 and 28 to 31, without the baryons' oscillations.
        """
        m, b = self.omega_m * self.h**2, self.omega_b / self.omega_m
        sound = 44.5 * math.log(9.83 / m) / math.sqrt(
            1 + 10 * (self.omega_b * self.h**2)**0.75) * self.h
        alpha = (1 - 0.328 * math.log(431 * m) * b +
                 0.38 * math.log(22.3 * m) * b**2)
        gamma = self.omega_m * self.h * (
            alpha + (1 - alpha) / (1 + (0.43 * k * sound)**4))
        q = k * (2.7255 / 2.7)**2 / gamma
        a = torch.log(2 * math.e + 1.8 * q)
        return a / (a + (14.2 + 731 / (1 + 62.5 * q)) * q**2)

    def power(self, k: Tensor, z: float = 0.) -> Tensor:
        r"""Computes the linear power spectrum in (Mpc/h)³; zero at zero.

        Args:
            k: Wave numbers in h/Mpc.
            z: The redshift.
        """
        safe = torch.where(k > 0, k, 1.)
        shape = safe**self.n_s * self.transfer(safe)**2
        scale = (self.sigma_8 * self.growth(z))**2 / self._variance_of_shape()
        return torch.where(k > 0, scale * shape, 0.)

    def _variance_of_shape(self, radius: float = 8.) -> float:
        k = torch.logspace(-4, 2, 4001, dtype=torch.float64)
        x = k * radius
        window = 3 * (x.sin() - x * x.cos()) / x**3
        shape = k**self.n_s * self.transfer(k)**2
        per_log = k**3 * shape * window**2 / (2 * math.pi**2)
        return torch.trapezoid(per_log, k.log()).item()
