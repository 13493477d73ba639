"""Videos with their labels and features: read, split, sampled."""
