"""``gql-jobs dev --reload``: which files are watched, and what is restarted when one of them changes.

Nothing is restarted before a process of its own (this file as a program) has compiled what has changed, imported the
job types anew and made the schema of them: what runs goes on while a file cannot be used.
"""

import asyncio
import logging
import os
import sys
import sysconfig
import traceback
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import msgspec
from msgspec import Struct

from gql_jobs.jobs.registry import Registry, load_job_types
from gql_jobs.processes.children import Child

log = logging.getLogger("gql_jobs.dev.reload")

_OWN = frozenset({"gql_jobs", "gql_jobs_worker"})
"""Packages that are not looked for: whoever writes on them starts ``dev`` in their folder."""
_INSTALLED = frozenset({"site-packages", "dist-packages"})
_CHECKED_WITHIN = 60.0
"""Seconds after which the check of what has changed is given up."""
_LOOK_INTERVAL = 500
"""Milliseconds after which the watch says that nothing has changed."""
_MOST_NAMED = 3
"""Files that a line of the log names."""


class Sources(Struct, frozen=True):
    """The files that matter: those below ``roots``.

    ``of_types``: what is imported where job types are registered, so that the API depends on it, too.
    """

    roots: tuple[str, ...]
    of_types: frozenset[str]


class Checked(Struct, frozen=True):
    """What the check has found: the sources, or the fault in a sentence."""

    sources: Sources | None = None
    fault: str = ""


def sources_of(registry: Registry, imports: Iterable[str]) -> Sources:
    """Return the sources of the job types of this process: the current folder, and their packages elsewhere.

    What is installed is not watched, nor is this package.
    """
    modules = set(imports)
    for job_type in registry:
        modules |= {job_type.payload.__module__, job_type.handler.partition(":")[0]}
    found = {Path.cwd()}
    for package in {module.partition(".")[0] for module in modules} - _OWN:
        found.update(_folders_of(package))
    roots = tuple(sorted(str(folder) for folder in found if not any(other in found for other in folder.parents)))
    files = {os.path.realpath(getattr(module, "__file__", None) or "") for module in list(sys.modules.values())}
    below = tuple(f"{root}{os.sep}" for root in roots)
    return Sources(roots, frozenset(file for file in files if file.startswith(below)))


def _folders_of(package: str) -> Iterable[Path]:
    """Return the folders of a package or module that is written here, resolved; none if it is installed."""
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):  # the check says what is wrong with it
        return ()
    if spec is None or (spec.origin is None and not spec.submodule_search_locations):
        return ()
    folders = [Path(one) for one in spec.submodule_search_locations or (str(Path(str(spec.origin)).parent),)]
    standard = Path(sysconfig.get_path("stdlib"))
    return [one.resolve() for one in folders if not _INSTALLED & set(one.parts) and standard not in (one, *one.parents)]


class Reload:
    """Restarts the parts of one ``dev`` when files change.

    :param imports: the modules that register job types.
    :param bundled: the bundled types that are wanted, as ``GQL_JOBS_TYPES`` says.
    """

    def __init__(self, imports: tuple[str, ...], bundled: tuple[str, ...]) -> None:
        self._imports = imports
        self._bundled = bundled
        self._children: asyncio.Future[tuple[Child, Child]] = asyncio.get_running_loop().create_future()

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Watch the files until the block ends."""
        watching = asyncio.create_task(self._watch(), name="reload")
        try:
            yield
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching

    def restarts(self, api: Child, worker: Child) -> None:
        """Restart these from now on: also for what has changed since the watch began."""
        api.is_edited = worker.is_edited = True
        self._children.set_result((api, worker))

    async def _watch(self) -> None:
        sources = sources_of(load_job_types(self._imports, self._bundled), self._imports)
        changed: set[str] = set()
        try:
            while True:
                roots = sources.roots
                async for paths in _changes(roots):
                    changed |= paths
                    sources = await self._reload(changed, sources)
                    if sources.roots != roots:
                        break
        except OSError as error:
            log.error("files cannot be watched any more, so nothing is restarted: %s", error)  # noqa: TRY400

    async def _reload(self, changed: set[str], sources: Sources) -> Sources:
        """Restart what depends on files, and forget them, unless one of them cannot be used; return the sources."""
        api, worker = await self._children
        checked = await _check(changed, self._imports, self._bundled)
        if checked.sources is None:
            log.error("%s Nothing is restarted; the next change will be looked at.", checked.fault)
            return sources
        has_types = bool(changed & (sources.of_types | checked.sources.of_types))
        log.info("%s changed: restarting %s", _named(changed), "the API and the worker" if has_types else "the worker")
        if has_types:
            api.restart()
        worker.restart()
        changed.clear()
        return checked.sources


async def _changes(roots: tuple[str, ...]) -> AsyncIterator[set[str]]:
    """Yield the Python files that have changed, whenever some have, once it is said that they are watched."""
    from watchfiles import Change, PythonFilter, awatch  # noqa: PLC0415  # an extra, for those who reload

    # It counts whatever changes, such as the files of NATS.
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
    is_python = PythonFilter()

    def is_source(change: Change, path: str) -> bool:
        return is_python(change, path) and not _INSTALLED & set(Path(path).parts)

    is_told = False
    async for changes in awatch(
        *roots,
        watch_filter=is_source,
        raise_interrupt=False,
        ignore_permission_denied=True,
        # That nothing has changed for a while tells that it does watch by now.
        rust_timeout=_LOOK_INTERVAL,
        yield_on_timeout=True,
    ):
        if not is_told:
            log.info("watching the files below %s", " and ".join(map(_shown, roots)))
            is_told = True
        if changes:
            yield {path for _, path in changes}


async def _check(changed: set[str], imports: tuple[str, ...], bundled: tuple[str, ...]) -> Checked:
    """Return what a new process finds, which imports the job types as they are now."""
    command = (sys.executable, "-P", "-m", __name__, msgspec.json.encode((sorted(changed), imports, bundled)).decode())
    process = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stdout=PIPE)
    try:
        out, _ = await asyncio.wait_for(process.communicate(), _CHECKED_WITHIN)
    except TimeoutError:
        return Checked(fault=f"The job types cannot be imported within {_CHECKED_WITHIN:g} s.")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    try:
        # Behind whatever the modules have printed.
        return msgspec.json.decode(out.splitlines()[-1], type=Checked)
    except (IndexError, msgspec.MsgspecError):
        return Checked(fault=f"The job types cannot be imported: a process ended with exit code {process.returncode}.")


def check(changed: list[str], imports: tuple[str, ...], bundled: tuple[str, ...]) -> Checked:
    """Compile the files, register the job types and make the schema; return the sources, or the first fault."""
    from gql_jobs.graphql.schema import sdl  # noqa: PLC0415  # takes longer than all that may fail before

    try:
        for path in changed:
            with suppress(FileNotFoundError):
                compile(Path(path).read_bytes(), path, "exec", dont_inherit=True)
        registry = load_job_types(imports, bundled)
        sdl(registry)
    except (Exception, SystemExit) as error:  # noqa: BLE001  # a module may raise anything when it is imported
        return Checked(fault=_fault(error))
    return Checked(sources_of(registry, imports))


def _fault(error: BaseException) -> str:
    """Return what is wrong in a sentence, and where if that is known."""
    text = traceback.format_exception_only(error)[-1].strip().rstrip(".")
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_shown(error.filename)}, line {error.lineno}: {text}."
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_written_here(frame.filename)]
    return f"{_shown(frames[-1].filename)}, line {frames[-1].lineno}: {text}." if frames else f"{text}."


def _is_written_here(path: str) -> bool:
    return not path.startswith("<") and not _INSTALLED & set(Path(path).parts) and not _OWN & set(Path(path).parts)


def _named(paths: set[str]) -> str:
    names = sorted(map(_shown, paths))
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _shown(path: str) -> str:
    """Return a path as somebody in the current folder would write it."""
    return os.path.relpath(path) if Path(path) == Path.cwd() or Path.cwd() in Path(path).parents else path


if __name__ == "__main__":
    # Last: a folder of the user's that is called as one of our packages must not hide it.
    sys.path.append(os.getcwd())  # noqa: PTH109
    _found = check(*msgspec.json.decode(sys.argv[1], type=tuple[list[str], tuple[str, ...], tuple[str, ...]]))
    print("\n" + msgspec.json.encode(_found).decode(), flush=True)  # noqa: T201
