r"""Linear elasticity of thin plates by finite elements."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from torch_geometric_erwin.datasets.array_files import (
    import_optional,
    is_count,
)
from torch_geometric_erwin.datasets.drawn import expect
from torch_geometric_erwin.datasets.plate_mesh import signed_area


class PlaneStress(NamedTuple):
    r"""What a plate under load does.

    Attributes:
        stress: :math:`\sigma_{xx}`, :math:`\sigma_{yy}`,
            :math:`\sigma_{xy}` at the points, of shape :math:`(N, 3)`.
        reaction: The force at what is held, of shape :math:`(2)`, per
            thickness.
    """
    stress: np.ndarray
    reaction: np.ndarray

    @property
    def von_mises(self) -> np.ndarray:
        r"""The equivalent stress of shape :math:`(N)`,
        :math:`\sqrt{\sigma_{xx}^2 - \sigma_{xx} \sigma_{yy} +
        \sigma_{yy}^2 + 3 \sigma_{xy}^2}`.
        """
        xx, yy, xy = self.stress.T
        return np.sqrt(xx**2 - xx * yy + yy**2 + 3 * xy**2)


def plane_stress(
    points: np.ndarray,
    triangles: np.ndarray,
    traction: Callable[[np.ndarray, np.ndarray], np.ndarray],
    held: Callable[[np.ndarray], np.ndarray],
    curve: Callable[[np.ndarray], np.ndarray] | None = None,
    poisson: float = 0.5,
    refinements: int = 1,
) -> PlaneStress:
    r"""Solves for the plane stress of a linear elastic plate at rest,

    .. math::
        \nabla \cdot \boldsymbol{\sigma} = 0, \quad
        \boldsymbol{\sigma} = \frac{E}{1 - \nu^2} \left( (1 - \nu)
        \boldsymbol{\varepsilon} + \nu \, \mathrm{tr}(\boldsymbol{
        \varepsilon}) \mathbf{I} \right),

    by quadratic triangles with curved sides along the rim, whose midpoints
    are on it. Young's modulus :math:`E` is one: stresses do not depend on it.
    They are projected to continuous piecewise linear functions, by least
    squares. Requires scikit-fem.

    Args:
        points: Of shape :math:`(N, 2)`.
        triangles: Between points, of shape :math:`(T, 3)`.
        traction: Returns the force on an area of the rim, from where it lies
            and the outward unit normal, all of shape :math:`(2, \ldots)`.
        held: Returns which components of displacement are zero at points of
            shape :math:`(2, n)`, as booleans of that shape.
        curve: Moves points beside the rim, of shape :math:`(n, 2)`, onto it.
            By default it is made of straight lines.
        poisson: Poisson's ratio :math:`\nu`, one half if incompressible.
        refinements: How often each triangle is divided in four.

    Raises:
        ImportError: If scikit-fem is not installed.
        ValueError: If shapes do not match, triangles are not
            counterclockwise, an argument is out of its range, too little is
            held, or curved triangles fold over.
    """
    _check(points, triangles, poisson, refinements)
    skfem = import_optional('skfem', 'plane_stress')
    mesh = _curved_mesh(skfem, points, triangles, curve, refinements)
    element = skfem.ElementVector(skfem.ElementTriP2())
    basis = skfem.Basis(mesh, element, intorder=4)
    _check_folds(basis)
    stiffness = _stiffness(skfem, poisson).assemble(basis)
    force = _load(skfem, traction).assemble(skfem.FacetBasis(
        mesh, element, intorder=5))
    component = np.arange(basis.N) % 2
    fixed = held(basis.doflocs)[component, np.arange(basis.N)]
    expect(fixed.sum() >= 3, 'held', 'true at three places or more, so that '
           'the plate cannot move', int(fixed.sum()))
    moved = _solve(stiffness, force, fixed)
    excess = np.where(fixed, stiffness @ moved - force, 0.)
    stress = _stress(basis, skfem.ElementTriP1(), moved, poisson)
    return PlaneStress(stress[:len(points)],
                       np.bincount(component, excess, 2))


def _check(points: np.ndarray, triangles: np.ndarray, poisson: float,
           refinements: int) -> None:
    expect(points.ndim == 2 and points.shape[1] == 2, 'points',
           'of shape (N, 2)', points.shape)
    expect(triangles.ndim == 2 and triangles.shape[1] == 3, 'triangles',
           'of shape (T, 3)', triangles.shape)
    expect(np.array_equal(np.unique(triangles), np.arange(len(points))),
           'triangles', f'made of all of {len(points)} points', triangles)
    expect(bool((signed_area(points, triangles) > 0).all()), 'triangles',
           'counterclockwise', triangles)
    expect(-1 < poisson <= 0.5, 'poisson', 'above -1 and at most 0.5',
           poisson)
    expect(is_count(refinements), 'refinements', 'zero or a positive number',
           refinements)


def _check_folds(basis: Any) -> None:
    side = np.sign(basis.mapping.detDF(basis.X))
    folded = int((side != side[:, :1]).any(axis=1).sum())
    expect(folded == 0, 'curve', 'near enough to the rim for triangles not '
           'to fold over', f'{folded} that do')


def _curved_mesh(skfem: Any, points: np.ndarray, triangles: np.ndarray,
                 curve: Callable | None, refinements: int) -> Any:
    r"""Returns a mesh of quadratic triangles; its first points are those."""
    mesh = skfem.MeshTri(points.T.copy(), triangles.T.copy())
    for _ in range(refinements):
        rim = mesh.nvertices + mesh.boundary_facets()
        mesh = _move(mesh.refined(1), rim, curve)
    mesh = skfem.MeshTri2.from_mesh(mesh)
    rim = mesh.dofs.get_facet_dofs(mesh.boundary_facets()).flatten()
    return _move(mesh, rim, curve)


def _move(mesh: Any, rim: np.ndarray, curve: Callable | None) -> Any:
    if curve is None:
        return mesh
    points = mesh.doflocs.copy()
    points[:, rim] = curve(points[:, rim].T).T
    return replace(mesh, doflocs=points)


def _law(gradient: np.ndarray, poisson: float) -> np.ndarray:
    r"""Returns the stress of a displacement by Hooke's law."""
    strain = (gradient + gradient.swapaxes(0, 1)) / 2
    trace = strain[0, 0] + strain[1, 1]
    stress = (1 - poisson) * strain
    stress[[0, 1], [0, 1]] += poisson * trace
    return stress / (1 - poisson**2)


def _stiffness(skfem: Any, poisson: float) -> Any:
    def energy(u: Any, v: Any, w: Any) -> np.ndarray:
        return (_law(u.grad, poisson) * v.grad).sum(axis=(0, 1))

    return skfem.BilinearForm(energy)


def _load(skfem: Any, traction: Callable) -> Any:
    def work(v: Any, w: Any) -> np.ndarray:
        return (traction(w.x, w.n) * v).sum(axis=0)

    return skfem.LinearForm(work)


def _solve(stiffness: Any, force: np.ndarray,
           fixed: np.ndarray) -> np.ndarray:
    r"""Solves for the displacement where it is not zero. The matrix is
    symmetric and positive: its order is that of less fill, without pivots.
    """
    linalg = import_optional('scipy.sparse.linalg', 'plane_stress')
    free = np.flatnonzero(~fixed)
    factors = linalg.splu(
        stiffness[free][:, free].tocsc(), permc_spec='MMD_AT_PLUS_A',
        diag_pivot_thresh=0., options={'SymmetricMode': True})
    moved = np.zeros(len(fixed))
    moved[free] = factors.solve(force[free])
    return moved


def _stress(basis: Any, element: Any, moved: np.ndarray,
            poisson: float) -> np.ndarray:
    r"""Projects the stress, which jumps from one triangle to the next, to
    continuous piecewise linear functions, which are given by their values at
    the corners.
    """
    linear = basis.with_element(element)
    stress = _law(basis.interpolate(moved).grad, poisson)
    return np.stack([linear.project(stress[i, j])[linear.nodal_dofs[0]]
                     for i, j in ((0, 0), (1, 1), (0, 1))], axis=1)
