"""What can go wrong between this process and JetStream. Whoever uses this package says what it means to its own users.

JetStreamError
├── Unavailable            the server is away, or did not answer in time: nothing is known to have happened
├── ApiError               the server refused a call of the JetStream API
├── MessageTooLarge        the server takes no message of that size
├── ObjectStoreError       a file could not be stored, read or removed
└── PublicationError       what became of a message that was published
    ├── FenceRefused       the last message under the fence is not the expected one
    ├── StoreFull          the server has no room
    ├── PublicationRefused the server refused it for another reason
    └── Unacknowledged     nobody here knows whether it was stored
"""

FENCE_REFUSALS = frozenset({10071, 10164})
"""``wrong last sequence``; on a replicated stream also ``… by subject constraint``."""
STORE_REFUSALS = frozenset({10023, 10047, 10077, 10002})
"""No room: insufficient resources, storage exceeded, maximum bytes, account limit."""


class JetStreamError(Exception):
    """A failure of the connection, or an answer of the server that is none of the expected ones."""


class Unavailable(JetStreamError):
    """The server is away or did not answer in time. The message is a sentence for people."""


class ApiError(JetStreamError):
    """The JetStream API refused a call; ``err_code`` is the server's own number of the reason."""

    def __init__(self, call: str, code: int, err_code: int, description: str) -> None:
        super().__init__(f"{call}: {description} ({err_code})")
        self.code = code
        self.err_code = err_code
        self.description = description


class MessageTooLarge(JetStreamError):
    """The server takes no message of that size, now or later. Sizes are in bytes, headers included."""

    def __init__(self, subject: str, size: int, limit: int) -> None:
        super().__init__(f"a message on {subject} has {size} bytes; the server takes at most {limit}")


class ObjectStoreError(JetStreamError):
    """A file could not be stored, read or removed; the message is the client's own."""


class PublicationError(JetStreamError):
    """A message was published, and is not known to be stored."""


class FenceRefused(PublicationError):
    """Somebody has written to the fenced subjects since, or the writer's own lost acknowledgement had succeeded."""


class StoreFull(PublicationError):
    """The server has no room for the message; it was not stored."""


class PublicationRefused(PublicationError):
    """The server refused the message for another reason, such as a stream that is missing.

    ``err_code`` is the server's own number of the reason, ``description`` its words.
    """

    def __init__(self, description: str, err_code: int) -> None:
        super().__init__(f"{description} ({err_code})")
        self.description = description
        self.err_code = err_code


class Unacknowledged(PublicationError):
    """The message was sent and nothing came back: stored or not, nobody here knows."""


def publication_refused(err_code: int, description: str) -> PublicationError:
    """Return the error that tells why the server did not store a message."""
    if err_code in FENCE_REFUSALS:
        return FenceRefused(description)
    if err_code in STORE_REFUSALS:
        return StoreFull(description)
    return PublicationRefused(description, err_code)
