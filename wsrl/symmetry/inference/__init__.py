"""Specs found by tracing a network, and proved."""
