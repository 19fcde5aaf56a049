"""How many random examples a test takes."""

from hypothesis import settings


def examples(ci, thorough):
    """Return one of these counts: `thorough` with `--hypothesis-profile thorough`, else `ci`.

    What is no test of Hypothesis and calls this has the mark `hypothesis`, as those have.
    """
    return thorough if settings.get_current_profile_name() == "thorough" else ci
