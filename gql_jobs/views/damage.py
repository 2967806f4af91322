"""What a damaged index file looks like from here. Whoever meets it has the index built anew: the stream has it all."""

import sqlite3

import msgspec

READ_ERRORS = (sqlite3.DatabaseError, msgspec.DecodeError)
"""What a read may fail with; ``is_damage`` tells whether the file is to blame."""
_CODES = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_EXTENDED_CODES = frozenset({sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_READONLY_DBMOVED})
_WORDS = ("no such table", "no such column", "Could not decode to UTF-8")


def is_damage(error: BaseException) -> bool:
    """Whether the file is to blame: a full or failing disk, or a mistake of ours, would not end with a new one."""
    if isinstance(error, msgspec.DecodeError):
        # Only blobs that this package has written are decoded where this is asked.
        return True
    code = getattr(error, "sqlite_errorcode", 0)
    if code & 0xFF in _CODES or code in _EXTENDED_CODES:
        return True
    return isinstance(error, sqlite3.OperationalError) and str(error).startswith(_WORDS)
