"""Encoders in other tools' formats, checked for parity."""
