"""Linear classifiers on frozen features: logistic regression, the papers' protocols, targets from a table."""
