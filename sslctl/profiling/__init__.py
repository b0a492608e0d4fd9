"""Where time and memory go, before and during a run."""
