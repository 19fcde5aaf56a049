"""NavGesture, sitting."""

from .navgesture_walk import info_of

INFO = info_of("sit", "NavGesture, sitting", "1571753ace4d9e0946e6503313712c22")
