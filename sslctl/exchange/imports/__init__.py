"""Other tools' weights as encoders, checked for parity."""
