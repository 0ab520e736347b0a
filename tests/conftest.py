"""What several test modules share."""

import numpy as np
import pytest
import torch

from regnet.images.volumes import Grid


@pytest.fixture(autouse=True)
def _same_random_numbers():
    torch.manual_seed(0)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def oblique_grid():
    """An isotropic grid of 2 mm, rotated about two axes, away from the origin, with a different size along each axis."""
    about_z, about_x = np.deg2rad(20), np.deg2rad(-12)
    first = np.array([[np.cos(about_z), -np.sin(about_z), 0], [np.sin(about_z), np.cos(about_z), 0], [0, 0, 1]])
    second = np.array([[1, 0, 0], [0, np.cos(about_x), -np.sin(about_x)], [0, np.sin(about_x), np.cos(about_x)]])
    return Grid((60, 52, 47), (2.0, 2.0, 2.0), (-31.0, 12.5, 88.0), tuple((first @ second).ravel().tolist()))
