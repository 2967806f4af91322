"""``python -m benchmarks.chaos``: faults on purpose under load, then the log against what clients were told.

Starts nats-server (one, or three as a cluster), API processes and workers on loopback; kills, pauses and restarts them
in an order that the seed decides; ends everything by itself. Exit 1 if a promise of docs/guarantees.md was broken.
"""

import argparse
import asyncio
import json
import logging
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import uvloop

from benchmarks.chaos.load import Amount
from benchmarks.chaos.nemesis import AWAY, ON_A_CLUSTER, ON_ONE_NODE, Fault
from benchmarks.chaos.report import Report
from benchmarks.chaos.run import Plan, Result, carry_out
from benchmarks.chaos.servers import server_program
from benchmarks.chaos.system import ROOT, Shape, log_progress

log = logging.getLogger(__name__)

_SECONDS_A_FAULT = 12.0
"""What a fault takes on average; the load is spread so that it lasts as long as the faults."""
_CLUSTER = 3


def main() -> None:
    """Parse the arguments, run, print, and exit with 1 if a promise was broken."""
    options = _parser().parse_args()
    log_progress()
    seed = options.seed if options.seed is not None else time.time_ns() % 1_000_000
    planned = _plan(options, seed)
    folder = Path(tempfile.mkdtemp(prefix="gql-jobs-chaos-"))
    began = time.monotonic()
    log.info("seed %d, in %s", seed, folder)
    kept = False
    try:
        result = uvloop.run(_bounded(planned, folder))
        report = _report(options, seed, result, time.monotonic() - began)
        kept = result.findings.kept
        sys.stdout.write((json.dumps(report.as_object()) if options.json else report.as_text()) + "\n")
    finally:
        if kept and not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            log.info("stores and logs are left in %s", folder)
    sys.exit(0 if kept else 1)


async def _bounded(planned: Plan, folder: Path) -> Result:
    """Four times what was meant and ten minutes more: then something hangs, which is a broken promise too."""
    meant = max(planned.amount.jobs / planned.amount.rate, planned.faults * 2 * _SECONDS_A_FAULT)
    async with asyncio.timeout(4 * meant + 600):
        return await carry_out(planned, folder)


def _plan(options: argparse.Namespace, seed: int) -> Plan:
    shape = Shape(
        apis=options.apis,
        workers=options.workers,
        nodes=_CLUSTER if options.cluster else 1,
        sync_always=options.sync == "always",
    )
    rate = options.rate or max(options.jobs / max(options.faults * _SECONDS_A_FAULT, 10), 1)
    amount = Amount(seed, options.jobs, rate, poisons=options.faults // 10 + 1)
    kinds = tuple(Fault[name] for name in options.only) or (ON_A_CLUSTER if options.cluster else ON_ONE_NODE)
    away = AWAY if options.away is None else (options.away, options.away)
    return Plan(shape, amount, options.faults, kinds, away)


def _report(options: argparse.Namespace, seed: int, result: Result, seconds: float) -> Report:
    command = f"python -m benchmarks.chaos --seed {seed} --jobs {options.jobs} --faults {options.faults}"
    command += " --cluster" if options.cluster else ""
    command += " --sync always" if options.sync == "always" else ""
    command += "".join(f" --only {name}" for name in options.only)
    command += f" --rate {options.rate:g}" if options.rate else ""
    command += f" --away {options.away:g}" if options.away is not None else ""
    return Report(command, seed, _versions(), result.findings, result.outcomes, seconds)


def _versions() -> dict[str, str]:
    server = subprocess.run([server_program(), "--version"], capture_output=True, text=True, check=True)
    git = ("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD")
    commit = subprocess.run(git, capture_output=True, text=True, check=False)
    return {
        "nats_server": server.stdout.split()[-1],
        "nats_py": version("nats-py"),
        "python": platform.python_version(),
        "commit": commit.stdout.strip() or "unknown",
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="decides load and faults; default: one of the clock")
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--faults", type=int, default=8)
    parser.add_argument("--rate", type=float, help="creations a second; default: the load lasts as long as the faults")
    parser.add_argument("--cluster", action="store_true", help="three NATS nodes, three copies")
    parser.add_argument("--sync", choices=("default", "always"), default="default", help="fsync of nats-server")
    parser.add_argument("--apis", type=int, default=2, help="API processes")
    parser.add_argument("--workers", type=int, default=3, help="worker processes")
    kinds = [fault.name for fault in Fault]
    parser.add_argument("--only", action="append", default=[], choices=kinds, help="kinds of faults; repeatable")
    parser.add_argument("--away", type=float, help="seconds until a killed NATS node runs again (default: 0 to 3)")
    parser.add_argument("--keep", action="store_true", help="keep stores and logs even if nothing was broken")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    main()
