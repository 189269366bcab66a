"""Errors that are meant for the user: each says what is wrong, where, and what to do."""


class UserError(Exception):
    """Something the user can mend.

    ``message`` says what must hold, what was found and where (file, image, field); ``hint`` says what to do next.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class BadRequest(UserError):
    """A value the user gave is not one that is accepted (exit code 2, HTTP 400)."""


class NotFound(UserError):
    """What was asked for does not exist (exit code 2, HTTP 404)."""


class Conflict(UserError):
    """Somebody else changed it first, or holds it now (HTTP 409)."""


class ImportRefused(UserError):
    """The whole import was refused and nothing was written."""


class SameNames(ImportRefused):
    """Two classes of the export share a name; the import goes on once the user confirms that they are one."""


class Cancelled(UserError):
    """The user stopped it; nothing half-written is left."""
