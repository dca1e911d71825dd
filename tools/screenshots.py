"""Take the README's pictures of the console: `python -m tools.screenshots`, after `make run` of drawn photos.

It opens the pages of the last run in a browser (Debian's chromium, Playwright from PyPI) and writes small PNG files.
Photos of people or places do not belong into a README: draw some first.

    .venv/bin/python -c "from pathlib import Path; from model_code.data import sample_data; \
sample_data.draw(Path('drawn'), photos=50)"
    make run DATA=drawn WEIGHTS=none ARCHITECTURE=squeezenet1_1
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import requests

from launcher import last_run
from launcher.settings import REPOSITORY, Secrets, Settings

SIZE = {"width": 1200, "height": 760}
COLORS = 128
MOST_BYTES = 150_000


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=REPOSITORY / "docs" / "images")
    parser.add_argument("--scheme", choices=["light", "dark"], default="light")
    parser.add_argument(
        "--page", action="append", help="another page: name=hash; default: the README's three"
    )
    given = parser.parse_args()
    settings = Settings.from_environ(os.environ)
    chosen = dict(page.split("=", 1) for page in given.page) if given.page else pages(settings.home)
    given.out.mkdir(parents=True, exist_ok=True)
    secrets = Secrets.load(settings.home)
    assert secrets is not None, f"{settings.home} has no run: make run makes one"
    for name, data in shots(settings.airflow_url, secrets.admin_password, chosen, given.scheme).items():
        path = given.out / f"{name}.png"
        path.write_bytes(data)
        print(f"{path}: {len(data):,} bytes")
        assert len(data) <= MOST_BYTES, f"{path} is too large for a README"


def pages(home: Path) -> dict[str, str]:
    """Return the README's pages of the last run: name and the part of the address behind #."""
    kept = json.loads((home / last_run.FILE).read_text())
    dataset = kept["results"]["upload"]
    mistakes = f"/data/{dataset['name']}/{dataset['version']}/mistakes/1"
    return {
        "console-models": "/models",
        "console-run": f"/runs/{quote(kept['run_id'])}",
        "console-mistakes": mistakes,
    }


def shots(url: str, password: str, chosen: Mapping[str, str], scheme: str = "light") -> dict[str, bytes]:
    """Return PNG files of pages, by name: the part of each window that is seen without scrolling."""
    from playwright.sync_api import sync_playwright

    token = requests.post(
        f"{url}/auth/token", json={"username": "admin", "password": password}, timeout=30
    ).json()["access_token"]
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(
            viewport=SIZE, color_scheme=scheme, extra_http_headers={"Authorization": f"Bearer {token}"}
        )
        taken = {}
        for name, part in chosen.items():
            page.goto(f"{url}/ml-pipeline/#{part}")
            page.reload()
            page.wait_for_selector("main h1")
            loading = page.get_by_text("Loading", exact=True)
            while loading.count():
                loading.first.wait_for(state="detached")
            page.wait_for_load_state("networkidle")
            taken[name] = small(page.screenshot())
        browser.close()
    return taken


def small(png: bytes) -> bytes:
    """Return a picture in few colors, which pages of text and charts do not miss."""
    from PIL import Image

    out = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(COLORS).save(out, "PNG", optimize=True)
    return out.getvalue()


if __name__ == "__main__":
    main()
