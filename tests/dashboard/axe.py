"""What axe finds on a page: violations of WCAG 2.2 A and AA, and of its best practices."""

from typing import Any

import pytest
from playwright.async_api import Page

from tests.running import ROOT

_AXE = ROOT / "dashboard" / "node_modules" / "axe-core" / "axe.min.js"
NEEDS_AXE = pytest.mark.skipif(not _AXE.is_file(), reason="not installed: make web-test")


async def violations_on(page: Page) -> list[dict[str, Any]]:
    """What axe has found, shortened to what names it."""
    await page.evaluate(_AXE.read_text())
    found = await page.evaluate("axe.run({ resultTypes: ['violations'] })")
    return [
        {"rule": one["id"], "where": [node["html"][:160] for node in one["nodes"][:3]]} for one in found["violations"]
    ]
