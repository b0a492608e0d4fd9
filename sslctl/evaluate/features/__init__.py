"""Frozen features: extraction, the cache, feature files."""
