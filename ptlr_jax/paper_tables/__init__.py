"""The paper's Tables I to VI: rows, published figures, formats."""
