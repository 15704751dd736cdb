"""Fused kernels: the message operator in plain PyTorch (the oracle) and in C++.

Import `mlip.kernels.message` for the operator; this package itself imports nothing heavy.
"""
