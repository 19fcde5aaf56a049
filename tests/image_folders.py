"""Images in class folders."""

import numpy as np
from PIL import Image


def write_images(folder, classes, count, size=(6, 5)):
    for value, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(np.full(size, 10 * value + i, np.uint8)).save(folder / name / f"{i}.png")
