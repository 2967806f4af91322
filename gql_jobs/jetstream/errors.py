"""The errors of this package. Its users translate them into errors that mean something to their own users.

JetStreamError
├── Unavailable            the server is away, or did not answer in time: nothing is known to have happened
├── ApiError               the server refused a call of the JetStream API
├── MessageTooLarge        the server takes no message of that size
├── StreamReplaced         a stream is another one than before, or has lost what was read of it
├── ObjectStoreError       a file could not be stored, read or removed
└── PublicationError       what became of a message that was published
    ├── FenceRefused       the last message under the fence is not the expected one
    ├── StoreFull          the server has no room
    ├── PublicationRefused the server refused it for another reason
    └── Unacknowledged     it is unknown whether it was stored
"""

FENCE_REFUSALS = frozenset({10071, 10164})
"""The server's error numbers for ``wrong last sequence``, and for its second form on replicated streams."""
STORE_REFUSALS = frozenset({10023, 10047, 10077, 10002})
"""The server's error numbers for: insufficient resources, storage exceeded, maximum bytes, account limit."""


class JetStreamError(Exception):
    """Any failure of a call of this package."""


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


class StreamReplaced(JetStreamError):
    """A stream is another one than the one that was followed, or has lost messages that were read of it.

    Whatever was made of those messages is void. The message is a sentence for people.
    """


class ObjectStoreError(JetStreamError):
    """A file could not be stored, read or removed; the message is nats-py's."""


class PublicationError(JetStreamError):
    """A message was sent, but the server has not acknowledged that it is stored."""


class FenceRefused(PublicationError):
    """The fenced subjects have a newer message: of another writer, or this very one, stored by an earlier try."""


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
    """No acknowledgement came in time: the message may or may not have been stored."""


def publication_refused(err_code: int, description: str) -> PublicationError:
    """Return the error for a refusal with this error number and description."""
    if err_code in FENCE_REFUSALS:
        return FenceRefused(description)
    if err_code in STORE_REFUSALS:
        return StoreFull(description)
    return PublicationRefused(description, err_code)
