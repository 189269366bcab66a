"""Start Anchorage: ``python launch.py`` opens the app in the browser."""

import argparse
import sys
from pathlib import Path

from app import doctor
from app.errors import UserError


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, open the workspace and serve it; returns the exit code."""
    values = _parser().parse_args(arguments)
    if values.doctor:
        return doctor.main()
    try:
        return _serve(values)
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except ImportError as error:
        sys.stderr.write(f"{doctor.explain_import_error(error)}\n")
        return 1


def _serve(values: argparse.Namespace) -> int:
    # Imported here: a missing package or system library is told in one sentence instead of a traceback.
    from app.api import server
    from app.services.demo import start_demo
    from app.store.files import Workspace

    workspace = Workspace(values.projects)
    server.prepare_environment(workspace)
    server.log_to_file(workspace.hidden("logs", "app.log"))
    options = server.ServeOptions(host=values.host, port=values.port, has_browser=not values.no_browser)
    return server.serve(workspace, options, start_demo if values.demo else None)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="launch.py", description="Label images, train Faster R-CNN detectors and judge them, in the browser."
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    parser.add_argument("--port", type=_port, help="port to listen on (default: the first free one from 7860)")
    parser.add_argument("--projects", type=Path, default=Path("projects"), help="where projects are kept")
    parser.add_argument("--no-browser", action="store_true", help="only print the link")
    parser.add_argument("--demo", action="store_true", help="make a demo project and start a short training on it")
    parser.add_argument("--doctor", action="store_true", help="say what this machine can do, and what to mend")
    return parser


def _port(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 1 to 65535")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
