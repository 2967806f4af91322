"""JSON on the wire: msgspec's codec, with the errors that Strawberry expects of a JSON codec."""

import json
from typing import Any

import msgspec

encode = msgspec.json.encode


def decode(text: str | bytes) -> Any:
    """The value of a JSON text.

    :raises json.JSONDecodeError: for anything that is none, is no UTF-8, or is nested too deeply.
    """
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise json.JSONDecodeError(str(error) or "nested too deeply", "", 0) from None
