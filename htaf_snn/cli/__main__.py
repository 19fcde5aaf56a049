"""`python -m htaf_snn.cli`, for processes that others start."""

from . import main

if __name__ == "__main__":
    main()
