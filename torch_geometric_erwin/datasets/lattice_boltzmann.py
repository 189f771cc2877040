r"""Unsteady viscous flow in two dimensions."""

import torch
from torch import Tensor

# Where populations move to, x and y; each but the first is followed by its
# opposite.
WAYS = ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1), (1, -1),
        (-1, 1))
OPPOSITE = (0, 2, 1, 4, 3, 6, 5, 8, 7)
WEIGHTS = (4 / 9, *[1 / 9] * 4, *[1 / 36] * 4)
# Of the product of (time - 1/2) of even and odd parts: where walls lie depends
# on it alone, not on the viscosity. They lie halfway between cells with 3/16,
# up to errors of second order with 1/12, which is stable at low viscosity.
MAGIC = 1 / 12


class LatticeBoltzmann:
    r"""The weakly compressible Navier-Stokes equations, by the lattice
    Boltzmann method with nine velocities, two relaxation times (Ginzburg,
    Verhaeghe and d'Humières 2008) and forces of second order (Guo, Zheng and
    Shi 2002).

    Units are those of the lattice: cells have edges of one, a step takes a
    time of one, and density is about one. Sound travels at
    :math:`1 / \sqrt{3}`, so velocities are to stay below some 0.2.

    No-slip walls lie halfway between solid cells and others. The grid is
    periodic: what leaves it enters on the other side, unless solid or open
    cells lie between. Open cells are held at :obj:`inflow` where it is not
    NaN; the others let flow out at a density of one.

    Args:
        solid (torch.Tensor): Which cells are walls or within bodies, shape
            :math:`(H, W)`.
        viscosity (float): Kinematic viscosity.
        opening (torch.Tensor, optional): Which cells are open, shape
            :math:`(H, W)`. (default: :obj:`None`, none)
        inflow (torch.Tensor, optional): Their velocities, shape
            :math:`(2, H, W)`. (default: :obj:`None`, flow leaves)

    Raises:
        ValueError: If shapes do not fit, the viscosity is not positive, or
            an open cell is solid.
    """
    def __init__(self, solid: Tensor, viscosity: float,
                 opening: Tensor | None = None,
                 inflow: Tensor | None = None) -> None:
        check(solid, viscosity, opening, inflow)
        self.shape = solid.shape
        self.solid = solid
        self.time = 0
        self._source = where_from(solid).flatten().int()
        even = 3 * viscosity + 0.5
        self._rates = 1 / even, 1 / (MAGIC / (even - 0.5) + 0.5)
        self._stay, self._gain = collision(*self._rates)
        self._set_openings(opening, inflow)
        self.populations = equilibrium(
            torch.ones(solid.numel()), torch.zeros(2, solid.numel()))

    def _set_openings(self, opening: Tensor | None,
                      inflow: Tensor | None) -> None:
        r"""Keeps which cells are open, and what flows in there."""
        self._open = torch.zeros(0, dtype=torch.long)
        if opening is not None:
            self._open = opening.flatten().nonzero().squeeze(1)
        self._inflow = torch.full((2, len(self._open)), torch.nan)
        if inflow is not None:
            self._inflow = inflow.flatten(1)[:, self._open].float()
        self._inner = neighbors_inside(self.solid, self._open)

    def step(self, force: Tensor | None = None) -> None:
        r"""Goes on by one unit of time.

        Args:
            force (torch.Tensor, optional): Force on each cell, by its mass,
                shape :math:`(2, H, W)`. (default: :obj:`None`, none)
        """
        f = self.populations
        density, u = moments(f, force)
        terms = polynomials(density, u, force)
        f = torch.addmm(self._gain[:, :len(terms)] @ terms, self._stay, f)
        f = f.view(-1).index_select(0, self._source).view_as(f)
        if len(self._open):
            f[:, self._open] = self._let_flow(f)
        self.populations, self.time = f, self.time + 1

    def _let_flow(self, f: Tensor) -> Tensor:
        r"""Open cells: as their neighbors inside, but for what is given."""
        density, u = moments(f[:, self._inner], None)
        given = self._inflow.isfinite()
        density = torch.where(given[0], density, 1.)
        return equilibrium(density, torch.where(given, self._inflow, u))

    def fields(self, force: Tensor | None = None) -> tuple[Tensor, Tensor]:
        r"""Returns density :math:`(H, W)`, one in solid cells, and velocity
        :math:`(2, H, W)`, zero in these. Pressure is a third of the density.
        """
        density, u = moments(self.populations, force)
        solid = self.solid.flatten()
        density, u = torch.where(solid, 1., density), torch.where(solid, 0., u)
        return density.view(self.shape), u.view(2, *self.shape)


def moments(f: Tensor, force: Tensor | None) -> tuple[Tensor, Tensor]:
    r"""Returns densities :math:`(N)` and velocities :math:`(2, N)`."""
    ways = f.new_tensor(WAYS).t()
    sums = torch.cat([f.new_ones(1, 9), ways]) @ f
    density, momentum = sums[0], sums[1:]
    if force is not None:
        momentum = momentum + 0.5 * density * force.flatten(1)
    return density, momentum / density


def polynomials(density: Tensor, u: Tensor,
                force: Tensor | None) -> Tensor:
    r"""Returns what populations after a collision are linear in,
    :math:`(6, N)` or, with forces, :math:`(11, N)`.
    """
    momentum = density * u
    square = momentum * u
    terms = [density, *momentum, *square, momentum[0] * u[1]]
    if force is not None:
        push = density * force.flatten(1)
        work = push * u
        terms += [*push, *work, push[0] * u[1] + push[1] * u[0]]
    return torch.stack(terms)


def coefficients() -> tuple[Tensor, Tensor]:
    r"""Returns the equilibrium, :math:`(9, 6)`, and the populations that
    forces drive, :math:`(9, 5)`, as coefficients of :func:`polynomials`.
    """
    w = torch.tensor(WEIGHTS, dtype=torch.float64)
    x, y = torch.tensor(WAYS, dtype=torch.float64).t()
    still = torch.stack([
        torch.ones(9), 3 * x, 3 * y, 4.5 * x * x - 1.5, 4.5 * y * y - 1.5,
        9 * x * y], dim=1)
    driven = torch.stack([3 * x, 3 * y, 9 * x * x - 3, 9 * y * y - 3,
                          9 * x * y], dim=1)
    return w[:, None] * still, w[:, None] * driven


def collision(even: float, odd: float) -> tuple[Tensor, Tensor]:
    r"""Returns matrices of what populations keep, :math:`(9, 9)`, and what
    they gain of :func:`polynomials`, :math:`(9, 11)`, where parts that are
    even and odd under a change of sign relax at their rates.
    """
    eye = torch.eye(9, dtype=torch.float64)
    flip = eye[list(OPPOSITE)]
    plus, minus = (eye + flip) / 2, (eye - flip) / 2
    relax = even * plus + odd * minus
    still, driven = coefficients()
    gain = torch.cat([relax @ still, (eye - relax / 2) @ driven], dim=1)
    return (eye - relax).float(), gain.float()


def equilibrium(density: Tensor, u: Tensor) -> Tensor:
    r"""Returns populations at rest with each other, :math:`(9, N)`."""
    still = coefficients()[0].to(density.dtype)
    return still @ polynomials(density, u, None)


def where_from(solid: Tensor) -> Tensor:
    r"""Returns which population, counted over all, each one will be after it
    has moved, :math:`(9, H, W)`: that of the cell it comes from, or, if that
    is solid, its own opposite, which has met a wall.
    """
    cell = torch.arange(solid.numel()).view(solid.shape)
    rows = []
    for i, (x, y) in enumerate(WAYS):
        source = cell.roll((y, x), (0, 1))
        bounced = solid.roll((y, x), (0, 1))
        rows.append(torch.where(bounced, OPPOSITE[i] * cell.numel() + cell,
                                i * cell.numel() + source))
    return torch.stack(rows)


def neighbors_inside(solid: Tensor, cells: Tensor) -> Tensor:
    r"""Returns a neighbor that is neither open nor solid for each open cell,
    the cell itself where there is none.
    """
    inside = ~solid.flatten()
    inside[cells] = False
    index = torch.arange(solid.numel()).view(solid.shape)
    found, done = cells.clone(), torch.zeros(len(cells), dtype=torch.bool)
    for x, y in WAYS[1:]:
        near = index.roll((y, x), (0, 1)).flatten()[cells]
        take = inside[near] & ~done
        found[take], done = near[take], done | take
    return found


def check(solid: Tensor, viscosity: float, opening: Tensor | None,
          inflow: Tensor | None) -> None:
    if solid.dim() != 2 or solid.dtype != torch.bool:
        raise ValueError(f"Expected 'solid' to be of type bool and shape "
                         f"[H, W] (got {solid.dtype}, {list(solid.shape)})")
    if not 0 < viscosity < float('inf'):
        raise ValueError(f"Expected 'viscosity' to be positive (got "
                         f"{viscosity})")
    if opening is not None and (opening.shape != solid.shape
                                or (opening & solid).any()):
        raise ValueError(f"Expected 'opening' to be of shape "
                         f"{list(solid.shape)} and nowhere solid (got "
                         f"{list(opening.shape)})")
    if inflow is not None and inflow.shape != (2, *solid.shape):
        raise ValueError(f"Expected 'inflow' to be of shape "
                         f"{[2, *solid.shape]} (got {list(inflow.shape)})")
