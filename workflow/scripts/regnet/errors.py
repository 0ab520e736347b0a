"""The errors this package raises on purpose. Each message is one line a user can act on."""


class RegNetError(Exception):
    """Base of all errors that a script or the command line shows as one line, without a traceback."""

    def __str__(self) -> str:
        # Messages quote what files hold; a control character among it would garble the terminal.
        text = super().__str__()
        return "".join(one if one.isprintable() or one == "\n" else ascii(one)[1:-1] for one in text)


class InputError(RegNetError):
    """A file, table or image of the user's is not what it has to be: which file and field, what was found, what expected."""


class ConfigError(RegNetError):
    """A key of the config, or the combination of several, cannot work."""


class OutputError(RegNetError):
    """A result cannot be written where it was asked for."""


class RegistrationError(RegNetError):
    """A registration method failed on a pair of images."""
