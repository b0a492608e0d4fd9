"""Tests of the library's functions, one for each command."""
