"""The failures of a command."""


class Failed(Exception):
    """A command cannot go on. The message is one line for whoever typed it."""
