"""From a CAS to scored segments (NumPy)."""
