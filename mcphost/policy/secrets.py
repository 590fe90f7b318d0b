"""Secrets: values that cannot be printed, where they are read from, and how they enter an environment."""

import hmac
import re
from collections.abc import Mapping
from typing import NoReturn, Self

from pydantic import model_validator

from mcphost.policy.faults import Fault, listing, nearest
from mcphost.policy.fields import AbsolutePath, Model, VariableName
from mcphost.policy.files import Unreadable, check_encodable, read_bounded

# More than any key or certificate chain, less than what execve accepts in one string (MAX_ARG_STRLEN).
MAX_SECRET_BYTES = 64 * 1024

# What can follow a dollar in a template: a dollar, a reference to a secret, or something we refuse.
_DOLLAR = re.compile(r"\$(?:(?P<dollar>\$)|\{secret:(?P<secret>[A-Za-z0-9._-]+)\}|(?P<other>\{[^}]*\}?)?)")


class Secret:
    """A value that shows itself only to `reveal()`: not to repr, str, format, logs or pickle."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value. Whoever calls this answers for where it goes."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(...)"

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not copied out of the process")


class SecretRef(Model):
    """Where a secret is read from, once, when the runtime starts."""

    from_file: AbsolutePath | None = None
    """A file that holds the value; one line break at its end is not part of it."""

    from_env: VariableName | None = None
    """A variable in the runtime's own environment."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        exactly_one(self, "from_file", "from_env")
        return self

    def read(self, environ: Mapping[str, str]) -> Secret:
        """The value as it is now.

        Raises:
            Fault: it is not there, empty, too large or no text.
        """
        if self.from_env is not None:
            return _checked(environ.get(self.from_env), f"the variable {self.from_env}", at="fromEnv")
        try:
            data = read_bounded(str(self.from_file), max_bytes=MAX_SECRET_BYTES)
            text = data.decode()
        except Unreadable as error:
            raise Fault(f"the file {self.from_file} {_verb(str(error))}", at=("fromFile",)) from error
        except UnicodeDecodeError:
            raise Fault(f"the file {self.from_file} is not UTF-8 text", at=("fromFile",)) from None
        return _checked(re.sub(r"\r?\n\Z", "", text), f"the file {self.from_file}", at="fromFile")


def exactly_one(model: Model, *fields: str) -> None:
    """Refuse a model in which not exactly one of the fields is given."""
    given = [name for name in fields if getattr(model, name) is not None]
    if len(given) != 1:
        aliases = [type(model).model_fields[name].alias or name for name in fields]
        what = "exactly one source must be given"
        raise Fault(what, allowed=listing(aliases), at=(aliases[fields.index(given[1])],) if given else ())


def secret_names(template: str) -> tuple[str, ...]:
    """The names of the secrets that a template refers to, in order.

    Raises:
        Fault: a dollar in it is neither `$$` nor a reference to a secret.
    """
    names: list[str] = []
    for found in _DOLLAR.finditer(template):
        if found["secret"]:
            names.append(found["secret"])
        elif not found["dollar"]:
            raise Fault(
                "only secrets are filled in; no other variable is known here"
                if found["other"]
                else "a lone `$`",
                allowed="${secret:name}, and $$ for a dollar",
            )
    return tuple(names)


def interpolate(template: str, secrets: Mapping[str, Secret]) -> Secret:
    """The template with its secrets filled in and `$$` made `$`.

    The result is a secret also where nothing was filled in: an environment is never printed.

    Raises:
        Fault: a secret is not there, or the template is wrong.
    """
    for name in secret_names(template):
        if name not in secrets:
            raise Fault(f"the secret {name} is not there", suggestion=nearest(name, secrets))
    return Secret(
        _DOLLAR.sub(lambda found: "$" if found["dollar"] else secrets[found["secret"]].reveal(), template)
    )


def _checked(value: str | None, source: str, *, at: str) -> Secret:
    if value is None:
        raise Fault(f"{source} is not set", at=(at,))
    if not value:
        raise Fault(f"{source} is empty", at=(at,))
    try:
        check_encodable(value)
    except Fault as fault:
        raise Fault(f"{source}: {fault.message}", at=(at,)) from None
    return Secret(value)


def _verb(reason: str) -> str:
    return reason if reason.startswith("is ") else f"cannot be read: {reason}"
