"""What a run leaves in its folder, by name and fingerprint."""
