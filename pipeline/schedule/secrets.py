"""`${NAME}` in the configuration of notices: secrets stay in the environment, and out of everything that is kept."""

import os
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from components.errors import UsageError

NAME = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
# Headers whose values are secrets, whoever asks for them.
SECRET_HEADERS = re.compile(r"authorization|token|secret|password|cookie|api-?key", re.IGNORECASE)


# A piece of an address that only a secret looks like, as Slack, Mattermost, Discord and Google have them there.
SECRET_PART = re.compile(r"(?=[\w-]*\d)[\w-]{20,}")


def check_address(webhook: str) -> str:
    """What of a webhook's URL can be told before its variables are known.

    Raises:
      ValueError: it is no http:// or https:// URL, or holds a password or what looks like one.
    """
    if webhook.startswith("${"):
        return webhook
    try:
        parts = urlsplit(webhook)
        # A port that is no number is noticed only when it is asked for.
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or True)
    except ValueError:
        # In place of the host there may be a variable.
        known = webhook.startswith(("http://", "https://"))
        parts = urlsplit("")
    if not known:
        raise ValueError("must be a URL that begins with http:// or https://, or ${NAME} of an environment variable")
    if "@" in (parts.netloc or webhook.split("/")[2]):
        raise ValueError(
            "must have no user and password: what is in here is kept with every run; give them in "
            "schedule.notices.headers, such as Authorization: 'Basic ${NAME}'"
        )
    if any(SECRET_PART.fullmatch(part) for part in re.split(r"[/?&=]", NAME.sub("", webhook))[3:]):
        raise ValueError(
            "must hold no secrets: what is in here is kept with every run; put what looks like one into an "
            "environment variable and give ${NAME}"
        )
    return webhook


def check_headers(headers: dict[str, str]) -> dict[str, str]:
    """That headers can be sent, and that none holds a secret that would be kept with every run.

    Raises:
      ValueError: one does.
    """
    for name, value in headers.items():
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name) or not value.isprintable():
            raise ValueError(f"{name!r} is no header that can be sent")
        if SECRET_HEADERS.search(name) and not NAME.search(value):
            raise ValueError(
                f"the value of {name} would be kept with every run; put it into an environment variable and give "
                "'${NAME}'"
            )
    return headers


def filled_in(text: str, key: str, environment: Mapping[str, str] = os.environ) -> str:
    """A value of the configuration with its variables' values.

    Raises:
      UsageError: a variable is not set.
    """

    def value(found: re.Match[str]) -> str:
        if not environment.get(found[1]):
            raise UsageError(
                f"{key} needs the environment variable {found[1]}, which is not set; set it where the schedule is "
                "started."
            )
        return environment[found[1]]

    return NAME.sub(value, text)
