"""Tests of exports and imports, with what they share."""
