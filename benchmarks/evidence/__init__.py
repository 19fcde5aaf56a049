"""The measurements behind the README's and the results page's claims."""
