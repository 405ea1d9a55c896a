"""What goes wrong, by what can be done about it. Each has `field`: the option it is about, or ""."""


class Error(Exception):
    """Any error of dmc."""

    def __init__(self, sentence: str, field: str = ""):
        super().__init__(f"{field}: {sentence}" if field else sentence)
        self.field = field


class InvalidArgumentError(Error, ValueError):
    """What was asked for is out of range, unknown or contradictory."""


class NotFoundError(Error, FileNotFoundError):
    """A file or folder is not there."""

    def __str__(self) -> str:
        return str(self.args[0])


class DataError(Error, ValueError):
    """A model file or a text is damaged, or not what it should be."""


class ExhaustedError(Error, MemoryError):
    """The cache or a queue is full; it may not be later."""


class CancelledError(Error):
    """It was stopped."""


class UnavailableError(Error, RuntimeError):
    """This machine or this build lacks what is needed."""


class InternalError(Error, RuntimeError):
    """A mistake of dmc's own."""
