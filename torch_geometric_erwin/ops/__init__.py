r"""Functions on tensors: checks, dispatch and the kernels behind them."""
