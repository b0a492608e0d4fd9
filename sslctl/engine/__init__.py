"""Training: setup from a spec, the loop, optimizers, meter, health."""
