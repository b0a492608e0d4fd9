"""Encoders in and out of other people's formats, each checked for parity."""
