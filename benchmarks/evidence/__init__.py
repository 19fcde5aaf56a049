"""The measurements behind the documentation's claims."""
