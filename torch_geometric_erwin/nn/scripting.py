r"""What layers say to :func:`torch.jit.script`."""

from typing import NoReturn


class NotScriptable:
    r"""A module that takes ball trees, which TorchScript does not know."""
    def __prepare_scriptable__(self) -> NoReturn:
        raise NotImplementedError(
            f"'{type(self).__name__}' cannot be scripted, as TorchScript does "
            f"not know ball trees: use 'torch.export.export', which takes "
            f"them as inputs, and 'torch._inductor.aoti_compile_and_package' "
            f"for deployment without Python's overhead")
