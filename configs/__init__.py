"""Configurations: a base, and deltas of it for data sets and table rows."""
