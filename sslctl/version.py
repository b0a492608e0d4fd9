"""The version, alone, so that every room can state it."""

__version__ = "0.1.0"
