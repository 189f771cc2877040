import torch

from benchmarks.experiments.nets.patches import Patches
from benchmarks.experiments.nets.point_transformer_v3 import PatchBlock


def test_attention_within_a_patch_is_that_of_its_points():
    torch.manual_seed(0)
    block, x = PatchBlock(8, 2, 1).eval(), torch.randn(30, 8)
    batch = torch.tensor([0] * 20 + [1] * 10)
    patches = Patches.of(torch.arange(30), batch, 2, 16)
    out = block(x, patches)
    for part in (slice(0, 10), slice(10, 20), slice(20, 30)):
        alone = Patches.of(torch.arange(10), batch[:10], 1, 16)
        assert torch.allclose(out[part], block(x[part], alone), atol=1e-6)
    more = Patches.of(torch.arange(30), batch, 2, 20)  # ten slots are empty
    two = Patches.of(torch.arange(10), batch[:10], 1, 10)
    assert torch.allclose(block(x, more)[20:], block(x[20:], two), atol=1e-6)
