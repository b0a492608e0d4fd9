"""How good frozen features are: extraction, nearest neighbours, linear classifiers, scores with their uncertainty."""
