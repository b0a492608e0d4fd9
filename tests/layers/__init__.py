"""Tests of what objectives share."""
