"""One function a command: what the command line and Python share; prints nothing, returns a typed result."""
