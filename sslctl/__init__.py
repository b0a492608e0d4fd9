"""Self-supervised learning of image encoders from the command line; importing this imports nothing heavy."""

__version__ = "0.1.0"
