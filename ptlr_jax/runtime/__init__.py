"""The process itself: errors, progress, signals, devices, processes."""
