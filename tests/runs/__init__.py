"""Tests of a run on disk."""
