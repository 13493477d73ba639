"""Weakly supervised temporal action localization in JAX: ILG and PTLR."""

__version__ = "0.1.0"
