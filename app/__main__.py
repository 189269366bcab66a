"""`python -m app`: the use cases of the screen, without the screen."""

import sys

from app import doctor


def run() -> int:
    """Run the command line; a package or system library that is not there is told in one sentence."""
    try:
        from app.cli import main
    except ImportError as error:
        sys.stderr.write(f"{doctor.explain_import_error(error)}\n")
        return 1
    sys.stdout.reconfigure(errors="replace")  # a terminal may have no sign for "…" or for a class's name
    return main()


if __name__ == "__main__":
    sys.exit(run())
