"""Nearest neighbours: search, the weighted vote, retrieval."""
