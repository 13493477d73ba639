"""Whole runs: the phases of Algorithm 1 in order, of one seed or several."""
