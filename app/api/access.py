"""Who may come in: the workspace's secret, and links that work once.

The secret outlives the app, so that open tabs go on working after a restart. It is the value of the cookie and of
``Authorization: Bearer``. A link carries a code of its own, which is used up when it is redeemed: an address left in
a browser's history or a terminal's scrollback opens nothing.
"""

import hashlib
import os
import secrets
import time
from pathlib import Path

from app.store.files import Workspace

LINK_LIFE_S = 24 * 3600


class Access:
    """The secret in ``<workspace>/.anchorage/secret`` (readable by its owner only) and the codes not yet redeemed."""

    def __init__(self, workspace: Workspace) -> None:
        self._links = workspace.hidden_folder("links")
        self.token = _read_or_make(workspace.hidden("secret"))

    def mint_code(self) -> str:
        """A new code for one link; unused codes are forgotten after a day."""
        for old in self._links.iterdir():
            if time.time() - old.stat().st_mtime > LINK_LIFE_S:
                old.unlink(missing_ok=True)
        code = secrets.token_urlsafe(24)
        _write_private(self._link(code), "")
        return code

    def redeem(self, code: str) -> bool:
        """Whether the code was waiting; it is not any more, whichever process asked."""
        link = self._link(code)
        try:
            is_fresh = time.time() - link.stat().st_mtime <= LINK_LIFE_S
            link.unlink()
        except FileNotFoundError:
            return False
        return is_fresh

    def _link(self, code: str) -> Path:
        return self._links / hashlib.sha256(code.encode()).hexdigest()


def _read_or_make(path: Path) -> str:
    try:
        token = path.read_text().strip()
    except FileNotFoundError:
        token = ""
    if len(token) < 32:
        token = secrets.token_urlsafe(32)
        path.unlink(missing_ok=True)
        _write_private(path, token)
    return token


def _write_private(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
