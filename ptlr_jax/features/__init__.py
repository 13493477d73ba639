"""From videos to I3D features."""
