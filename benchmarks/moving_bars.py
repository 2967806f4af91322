"""What the dashboard's list of jobs costs a browser while the bars of many running jobs move.

``python -m benchmarks.moving_bars [--jobs 200] [--reports 10] [--height 900] [--seconds 10] [--json]``: a real Chromium
shows the jobs that run, each of which reports its progress so many times a second. Measured are the CPU of the process
that draws the page, and what it did in a second: the times it laid anything out, and its time in scripts. A window that
is high enough (``--height 9500``) shows all bars at once. Without a graphics card Chromium paints and composes on the
CPU as well, in a process of its own. Needs Chromium (``apt-get install chromium``) and the built dashboard.
"""

import argparse
import asyncio
import shutil
import sys
import time
from typing import Any

import psutil
import uvloop
from playwright.async_api import CDPSession, Page, async_playwright

from benchmarks import stack
from benchmarks.figures import show
from benchmarks.machine import raise_file_limit

START = 14.0
"""Seconds from the creation of the jobs to the measurement, at most."""
WARM_UP = 3.0
"""Seconds in which the page comes to rest before it is measured."""
_SECONDS = {
    "ScriptDuration": "script_seconds",
    "LayoutDuration": "layout_seconds",
    "RecalcStyleDuration": "style_seconds",
}
_TIMES = {"LayoutCount": "layouts_per_second", "RecalcStyleCount": "style_recalculations_per_second"}
_BAR_MOVES = """() => {
  window.moved = 0;
  const seen = new MutationObserver((changes) => {
    for (const { target } of changes) if (target.matches('.bar > span')) window.moved += 1;
  });
  seen.observe(document.body, { subtree: true, attributeFilter: ['style'] });
}"""


async def measured(jobs: int, reports: float, height: int, seconds: float) -> dict[str, Any]:
    """The figures of one run."""
    async with stack.running(workers=1, concurrency=jobs) as system, async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        try:
            page = await browser.new_page(viewport={"width": 1280, "height": height})
            # So short that every push moves every bar.
            ticks = {"reports": int(reports * (seconds + START)), "pause": 1 / reports}
            await system.fill("ticker", [ticks] * jobs)
            await page.goto(f"http://127.0.0.1:{system.port}/#/jobs?status=PROCESSING")
            await page.get_by_text(f"{jobs} jobs match").wait_for()
            await page.evaluate(_BAR_MOVES)
            await asyncio.sleep(WARM_UP)
            figures = await _figures(page, await page.context.new_cdp_session(page), seconds)
            if await system.count(status=["PROCESSING"]) < jobs:
                raise RuntimeError("jobs ended before the measurement did: the machine is too slow for so many")
        finally:
            await browser.close()
        await system.abandon_workers()
        return {"jobs": jobs, "reports_per_second": jobs * reports, **figures}


async def _figures(page: Page, devtools: CDPSession, seconds: float) -> dict[str, Any]:
    await devtools.send("Performance.enable")
    rows = await page.locator("tbody tr").count()
    moved, before, used = await page.evaluate("moved"), await _metrics(devtools), _used()
    began = time.monotonic()
    await asyncio.sleep(seconds)
    elapsed = time.monotonic() - began
    after, now = await _metrics(devtools), _used()
    grown = {name: (after[name] - before[name]) / elapsed for name in (*_SECONDS, *_TIMES)}
    return {
        "rows_drawn": rows,
        "bar_moves_per_second": round((await page.evaluate("moved") - moved) / elapsed),
        **{f"cores_{kind}": round((now[kind] - used.get(kind, 0.0)) / elapsed, 3) for kind in sorted(now)},
        **{said: round(grown[name], 1) for name, said in _TIMES.items()},
        **{said: round(grown[name], 3) for name, said in _SECONDS.items()},
    }


async def _metrics(devtools: CDPSession) -> dict[str, float]:
    answer = await devtools.send("Performance.getMetrics")
    return {metric["name"]: metric["value"] for metric in answer["metrics"]}


def _used() -> dict[str, float]:
    """CPU seconds so far of Chromium's processes, by what they are for."""
    used: dict[str, float] = {}
    for process in psutil.Process().children(recursive=True):
        kind = next((part[7:] for part in process.cmdline() if part.startswith("--type=")), None)
        if kind in ("renderer", "gpu-process"):
            times = process.cpu_times()
            used[kind] = used.get(kind, 0.0) + times.user + times.system
    return used


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.moving_bars", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--reports", type=float, default=10.0, help="of each job, a second")
    parser.add_argument("--height", type=int, default=900, help="of the window, in pixels")
    parser.add_argument("--seconds", type=float, default=10.0, help="that are measured")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    raise_file_limit()
    show(uvloop.run(measured(options.jobs, options.reports, options.height, options.seconds)), as_json=options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
