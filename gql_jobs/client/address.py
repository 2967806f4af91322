"""Where a client finds what it speaks to, and what it says of who asks."""

from pathlib import Path
from urllib.parse import urlsplit

from gql_jobs.environment import PREFIX, values_of_files, variables_and_file
from gql_jobs.logs import hide_values
from gql_jobs.processes.lock import address_of_dev

DEFAULT_ADDRESS = "http://127.0.0.1:8000"
"""Where ``gql-jobs api`` and ``gql-jobs dev`` listen unless they are told otherwise."""
_OF_NATS = ("nats://", "tls://", "ws://", "wss://")


class BadAddress(ValueError):
    """What was given is no address of an API, or no token; the message is a sentence that shows neither."""


def address_and_token(url: str | None, token: str | None) -> tuple[str, str | None]:
    """Return the address to speak to, as it is given, and what to say who asks; None for nothing.

    What is not given is taken from ``GQL_JOBS_URL`` and ``GQL_JOBS_TOKEN``, each also from a file (``…_FILE``) and from
    ``.env``; then the address is that of the ``gql-jobs dev`` that runs in the data folder, else ``DEFAULT_ADDRESS``.

    :raises BadAddress: if a value cannot be used, or its file cannot be read.
    """
    found: dict[str, str] = {}
    for given in reversed(variables_and_file()):
        values, problems = values_of_files(("URL", "TOKEN", "DATA_DIR"), given)
        if problems:
            raise BadAddress(" ".join(problems))
        found |= {name: value for name, value in {**given, **values}.items() if value}
    token = checked_token(token or found.get("TOKEN"))
    address = url or found.get("URL") or address_of_dev(Path(found.get("DATA_DIR", ".gql-jobs"))) or DEFAULT_ADDRESS
    return address, token


def checked_token(token: str | None) -> str | None:
    """Return a key or token as it is sent, which no output of this process shows from then on; None for an empty one.

    :raises BadAddress: if it has characters that none has.
    """
    if token is None:
        return None
    token = token.strip()
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise BadAddress("The token has characters that no key and no token has.")
    hide_values([token])
    return token or None


def is_of_nats(address: str) -> bool:
    """Return whether an address is that of a NATS server, or of several with commas in between."""
    return address.strip().lower().startswith(_OF_NATS)


def endpoint_of(address: str) -> str:
    """Return the URL of the GraphQL endpoint of an API; its path is ``/graphql`` where the address has none.

    :raises BadAddress: if it is no URL of an API.
    """
    try:
        parts = urlsplit(address)
        is_usable = parts.scheme in {"http", "https"} and _is_host(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable or not address.isprintable() or " " in address:
        raise BadAddress(f"The address of the API is no URL such as {DEFAULT_ADDRESS} ({PREFIX}URL or --url).")
    if parts.username is not None or parts.password is not None:
        raise BadAddress(f"An address holds no user and no password: give a key or token by {PREFIX}TOKEN.")
    return parts._replace(path=parts.path.rstrip("/") or "/graphql", fragment="").geturl()


def _is_host(name: str | None) -> bool:
    # Encoding raises a ValueError where the name can be none, such as one with an empty or overlong part.
    return bool(name) and (":" in str(name) or bool(str(name).encode("idna")))
