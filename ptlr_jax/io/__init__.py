"""Bytes on disk: atomic files, checkpoints, labels, detections, logs, locks."""
