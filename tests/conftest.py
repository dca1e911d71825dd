"""Fixtures and settings of every test."""

from __future__ import annotations

import os

from launcher.settings import keep_off_proxy

keep_off_proxy(os.environ)  # servers under test are on this machine
