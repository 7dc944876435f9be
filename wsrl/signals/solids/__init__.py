"""Procedural shapes with exact signed distances: nine families of primitives and of unions of them."""
