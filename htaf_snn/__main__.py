"""`python -m htaf_snn`, the command `htaf-snn`."""

from .cli import main

if __name__ == "__main__":
    main()
