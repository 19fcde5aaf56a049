"""`python -m htaf_snn.cli`, the command for child processes."""

from . import main

if __name__ == "__main__":
    main()
