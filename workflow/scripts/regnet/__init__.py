"""RegNet: learned displacement vector fields between two CT images, its training data, its baselines and its evaluation."""
