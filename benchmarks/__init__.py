"""Every performance claim as a program: prints a table, then one line of JSON, the result."""

import os

from launcher.settings import keep_off_proxy

keep_off_proxy(os.environ)  # ours and its peers are on this machine
