"""A run on disk: directory, checkpoint, the encoder of a checkpoint, metrics, sinks."""
