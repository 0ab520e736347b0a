"""RegNet: learned displacement vector fields between two CT images, its training data, its baselines and its evaluation."""

__version__ = "0.1.0"
