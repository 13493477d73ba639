"""Linen modules: f32[B,T,D] features and bool[B,T] masks to class scores."""
