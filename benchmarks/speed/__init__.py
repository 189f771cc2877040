r"""How fast operators and models are, beside their peers."""
