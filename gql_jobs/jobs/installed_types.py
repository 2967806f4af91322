"""The job types of installed packages, found by entry points, and which of those that come with gql-jobs there are.

An API process cannot know what workers on other machines can run, so all of them are offered unless the setting names
others; where everything runs on one machine, those are offered whose libraries are installed (docs/decisions.md).
"""

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec

GROUP = "gql_jobs.job_types"
"""The group of entry points that name modules which register job types."""
ALL, NONE = "all", "none"
"""What the setting says instead of naming bundled types."""
_BUNDLED = "gql_jobs.jobs.types."
"""Where the modules of the bundled types are; the name of the entry point is that of the type."""
_NEEDS: dict[str, tuple[str, ...]] = {
    "email": ("aiosmtplib",),
    "image_processing": ("httpx", "PIL"),
    "report_generation": ("duckdb", "reportlab", "sqlalchemy", "xlsxwriter"),
}
"""The modules beyond a bare installation that the handlers of the bundled types import."""


def load_installed(bundled: tuple[str, ...] = (ALL,)) -> None:
    """Import the modules of entry points, but for those of bundled types that are not wanted.

    What was imported before stays registered.

    :param bundled: the bundled types that are wanted: their names, ``all`` or ``none``.
    :raises ValueError: for a name that is not that of a bundled type.
    :raises ImportError: naming the module that could not be imported.
    """
    entries = _entries()
    known = {entry.name for entry in entries if _is_bundled(entry)}
    wanted = known if ALL in bundled else set(bundled) - {NONE}
    for name in sorted(wanted - known):
        raise ValueError(
            f"GQL_JOBS_TYPES names {name[:100]!r}, which does not come with gql-jobs; there are "
            f"{', '.join(sorted(known))}, {ALL} and {NONE}. Types of one's own are registered by --import, or an entry "
            "point."
        )
    for entry in entries:
        if entry.name in wanted or not _is_bundled(entry):
            entry.load()


def bundled_types() -> list[str]:
    """Return the names of the types that come with gql-jobs, sorted."""
    return [entry.name for entry in _entries() if _is_bundled(entry)]


def missing_modules(bundled_type: str) -> list[str]:
    """Return the modules that the handler of a bundled type needs and that are not installed here."""
    return [module for module in _NEEDS.get(bundled_type, ()) if not _is_installed(module)]


def _is_bundled(entry: EntryPoint) -> bool:
    return entry.value.startswith(_BUNDLED)


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


@cache
def _entries() -> list[EntryPoint]:
    """Return the entry points, sorted; found once, because that is to read the metadata of all packages."""
    return sorted(entry_points(group=GROUP), key=lambda entry: entry.name)
