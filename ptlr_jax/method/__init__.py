"""The paper: losses, temporal scale, ILG, refinement, pseudo labels.

Arrays in, arrays out: no disk, no configuration object.
"""
