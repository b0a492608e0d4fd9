"""Tests of the objectives: each against its authors' numbers, and all of them against what every one must keep."""
