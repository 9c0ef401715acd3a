"""Errors whose message is meant for the person at the keyboard."""


class GlinerkoError(Exception):
    """Something a user can mend. The message says what, where and what to do; scripts print it on one line."""


class DataError(GlinerkoError):
    """A row, a file or a data set that cannot be read as asked."""


class SwapError(GlinerkoError):
    """An encoder that cannot take the place of the base model's."""


class LoadError(GlinerkoError):
    """A model, encoder or tokenizer that cannot be loaded."""


class TrainingError(GlinerkoError):
    """A training step whose result must not be trusted."""


class Stopped(Exception):
    """A run that was asked to stop and can go on. The message says from where."""


class PublishError(GlinerkoError):
    """A model that must not be published, or a Hub that does not take it."""


def first_line(error: Exception) -> str:
    """The first line of another library's message, for a message of ours."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
