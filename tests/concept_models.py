"""A small concept model of the digits."""

import torch

from htaf_snn import models

N_CLASSES, N_CONCEPTS = 10, 12
SMOOTH = "htaf(normalized=True, hardness=0.0)"


def new_model(surrogate=SMOOTH):
    torch.manual_seed(0)
    return models.ICBM(models.ImageEncoder(1, 4), N_CONCEPTS, N_CLASSES, surrogate=surrogate)
