"""RegNet: a network that predicts the displacement field between two CT images, its training data, baselines and evaluation."""

__version__ = "0.2.0"
