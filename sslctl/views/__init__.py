"""From samples to views: crops per image, everything else on whole batches; nothing random but by key."""
