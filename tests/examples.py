"""How many random examples a test takes."""

from hypothesis import settings


def examples(ci, thorough):
    """Return one of these counts: `ci` in the profile of that name, `thorough` in the two others.

    What is no test of Hypothesis and calls this has the mark `hypothesis`, as those have.
    """
    return ci if settings.get_current_profile_name() == "ci" else thorough
