"""A bar for a download, shown only once there is something to show."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn


@contextlib.contextmanager
def download_bar(console: Console) -> Iterator[Callable[[int, int], None]]:
    """Yields a callback (done bytes, total bytes; 0 = unknown) that draws the bar."""
    columns = (TextColumn("downloading photos"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("download", total=None, visible=False)

        def advance(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total or None, visible=True)

        yield advance
