"""Which combinations of a test's parameters are tested by default."""

# Of a test with more combinations of parameters than this, so many are tested by default, or more where every value of
# every parameter needs more, each as often as the others; the other combinations are thorough.
LARGE_PRODUCT = 12


def covering(items):
    """Return so many of a test's combinations that every value of every parameter is among them."""
    values = {item: parameter_values(item) for item in items}
    uses = dict.fromkeys(set().union(*values.values()), 0)
    chosen, rest = [], list(items)
    while not all(uses.values()) or len(chosen) < LARGE_PRODUCT:
        counts = {item: [uses[value] for value in values[item]] for item in rest}
        best = max(rest, key=lambda item: (counts[item].count(0), -sum(counts[item])))
        chosen.append(best)
        rest.remove(best)
        for value in values[best]:
            uses[value] += 1
    return chosen


def parameter_values(item):
    """Return what identifies each parameter's value; of names given together, as ("x", "y"), a row is one value."""
    together = []
    for mark in item.iter_markers("parametrize"):
        names = mark.args[0]
        together.append([name.strip() for name in names.split(",")] if isinstance(names, str) else names)
    of_fixtures = set(item.callspec.params).difference(*together)
    together += [[name] for name in of_fixtures]
    return {tuple((name, id(item.callspec.params[name])) for name in names) for names in together}
