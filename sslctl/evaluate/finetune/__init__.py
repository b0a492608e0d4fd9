"""Training the whole network with labels."""
