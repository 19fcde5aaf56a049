"""HTML pages from templates that are stored beside the code."""

from __future__ import annotations


def render(package: str, template: str, **values: object) -> str:
    """Fill in a template of a package; values are escaped unless marked as safe, missing ones raise an error.

    Example:
        >>> render("htaf_snn.concepts", "atlas.html.jinja", title="<A>", data="{}", sheets="[]").count("&lt;A&gt;")
        2
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package, "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template(template).render(**values)
