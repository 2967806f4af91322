"""The command ``python -m gql_jobs.demo``."""

import sys


def main() -> None:
    """Run the demo; exit with 2 and a sentence if a library is not installed."""
    try:
        from gql_jobs.demo.program import run_command  # noqa: PLC0415
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        print(f"demo: {missing} is not installed: run pip install 'gql-jobs[all]'.", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    run_command()


if __name__ == "__main__":
    main()
