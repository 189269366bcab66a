"""Names of the files of a run's folder by which it goes on. Imports no torch."""

LAST_NAME = "last.pt"
PREVIOUS_NAME = "previous.pt"
DIGESTS_NAME = "last.sha256"
