"""The errors this package raises on purpose. Each message is one line a user can act on."""


def printable(text: str) -> str:
    """A line of text with control characters and line ends escaped, as in ``\\x1b``."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


class RegNetError(Exception):
    """Base of all errors that a script or the command line shows as one line, without a traceback."""

    def __str__(self) -> str:
        # Messages quote files, and a control character from a file would garble the terminal.
        return "\n".join(map(printable, super().__str__().split("\n")))


class InputError(RegNetError):
    """A user's file, table or image is wrong: the message names the file and field, what was found and what was expected."""


class ConfigError(RegNetError):
    """A key of the config, or a combination of keys, cannot work."""


class OutputError(RegNetError):
    """A result cannot be written to its path."""


class RegistrationError(RegNetError):
    """A registration method failed on a pair of images."""
