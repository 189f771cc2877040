r"""Writes small simulations the way EAGLE comes."""

import numpy as np

STEPS, POINTS = 12, 5
SPLITS = {'train': ['Cre/1/1', 'Tri/2/1'], 'valid': ['Spl/3/2'],
          'test': ['Tri/4/1']}
# Two meshes of the same points, in turn.
MESHES = ([[0, 1, 2], [0, 2, 3], [0, 3, 4]],
          [[0, 1, 4], [1, 2, 4], [2, 3, 4]])


def make_arrays(seed, points=POINTS):
    rng = np.random.default_rng(seed)
    arrays = {name: rng.normal(size=(STEPS, points)).astype(np.float32)
              for name in ('VX', 'VY', 'PS', 'PG')}
    arrays['pointcloud'] = rng.normal(size=(STEPS, points, 2))
    arrays['mask'] = rng.choice([0, 2, 4, 5, 6], size=(STEPS, points))
    return arrays


def write(folder, seed, save=np.savez, **changes):
    arrays = {**make_arrays(seed), **changes}
    folder.mkdir(parents=True, exist_ok=True)
    save(folder / 'sim.npz', **{name: array for name, array in arrays.items()
                                if array is not None})
    triangles = np.array([MESHES[i % 2] for i in range(STEPS)], np.int32)
    np.save(folder / 'triangles.npy', triangles)


def write_all(root):
    r"""Writes all simulations and the lists of them."""
    (root / 'Splits').mkdir()
    for split, names in SPLITS.items():
        (root / 'Splits' / f'{split}.txt').write_text(
            '\n'.join(names) + '\n')
        for name in names:
            write(root / name, seed=int(name[4]))
