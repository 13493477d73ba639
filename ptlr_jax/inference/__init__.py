"""Detections of further videos by a trained model."""
