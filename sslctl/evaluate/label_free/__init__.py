"""Scores that need no labels, and rankings by them."""
