"""`python -m app`: the use cases of the screen, without the screen."""

import sys

from app.cli import main

if __name__ == "__main__":
    sys.exit(main())
