import torch
from PIL import Image

from benchmarks.experiments.surfaces import draw
from torch_geometric_erwin.datasets import BluffBodies


def test_draw(tmp_path):
    cloud, = BluffBodies(str(tmp_path), num_clouds=1, num_points=200)
    good, bad = cloud.y + 0.01, torch.zeros_like(cloud.y)
    figure = draw(cloud, {'good': good, 'bad': bad}, 'pressure')
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    assert titles == ['truth', 'good', 'good: error',
                      'truth', 'bad', 'bad: error']
    faces = [ax.collections[0].get_facecolor() for ax in figure.axes[:6]]
    assert all(len(color) == cloud.face.size(1) for color in faces)
    # A small error is pale on the scale of a large one.
    assert faces[2].min() > 0.9 > faces[5].min()
    figure.savefig(tmp_path / 'picture.png')
    with Image.open(tmp_path / 'picture.png') as picture:
        assert len(picture.convert('RGB').getcolors(2**24)) > 100
