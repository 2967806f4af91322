"""``python -m benchmarks [NAME…]``: measures gql-jobs beside its peers and prints the figures.

Without a name it runs everything, and keeps the outcome in ``benchmarks/results`` and in the documents.
"""

import argparse
import json
import sys
import time

import uvloop

from benchmarks import publish, table
from benchmarks.machine import raise_file_limit
from benchmarks.measurement import ALL_OURS, Plan
from benchmarks.suite import BENCHES, note, run


def main() -> int:
    """Parse the arguments, measure, print."""
    options = _options()
    if options.publish:
        publish.publish(publish.load())
        return 0
    plan = Plan(quick=options.quick)
    names = options.names or [name for name, bench in BENCHES.items() if bench.quick or not plan.quick]
    systems = ALL_OURS if options.ours else None
    raise_file_limit()
    began = time.monotonic()
    outcome = uvloop.run(run(names, plan, systems))
    note(f"took {(time.monotonic() - began) / 60:.1f} minutes")
    if options.save or not (options.names or options.quick or options.ours):
        publish.save(outcome.records, whole=not options.names)
        publish.publish(publish.load())
    if options.json:
        print(json.dumps(outcome.records, indent=1))
    else:
        print(table.results(outcome.records), table.goals(outcome.records), sep="\n\n")
    for failure in outcome.failures:
        note(f"FAILED {failure}")
    return 1 if outcome.failures else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition("\n\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one or more of {', '.join(BENCHES)}")
    parser.add_argument("--quick", action="store_true", help="less of everything: to see that it works")
    parser.add_argument("--ours", action="store_true", help="gql-jobs alone")
    parser.add_argument("--json", action="store_true", help="print the records as JSON")
    parser.add_argument("--save", action="store_true", help="keep the figures of these benches in the results")
    parser.add_argument("--publish", action="store_true", help="only write charts and documents from the results")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in BENCHES]
    if unknown:
        parser.error(f"there is no bench {unknown[0]!r}; there are {', '.join(BENCHES)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
