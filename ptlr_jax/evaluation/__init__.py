"""Scoring of anybody's detections: mAP, its uncertainty, its causes."""
