"""The one error a task raises on purpose."""


class ProbeError(Exception):
    """Something the user can act on: bad data, a missing file, a setting the backend refuses.

    It becomes ``{"type", "message", "hint"}`` in the result and exit code 3, so that the
    orchestrator can show it without a traceback. Anything else that is raised is a defect and keeps
    its traceback.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
