"""Programs of an instance that stand in for those that would reach the host.

They come first on an instance's PATH and imitate or refuse. Where mount namespaces exist, the rest of the machine
is read-only for an instance in any case; these give the messages that say why.
"""

from __future__ import annotations

import sys
from pathlib import Path

REFUSED_PACKAGE_MANAGERS = (
    "apt", "apt-get", "aptitude", "dpkg", "yum", "dnf", "rpm", "zypper", "apk", "snap", "amazon-linux-extras",
    "conda", "brew", "pip", "pip3",
)  # fmt: skip
REFUSED_SERVICES = (
    "service",
    "initctl",
    "chkconfig",
    "update-rc.d",
    "docker",
    "dockerd",
    "podman",
    "nvidia-docker",
)
REFUSED_ADMINISTRATION = (
    "mount", "umount", "mkfs", "fdisk", "iptables", "ip6tables", "nft", "sysctl", "modprobe", "insmod", "useradd",
    "userdel", "usermod", "groupadd", "passwd", "chpasswd", "crontab", "at", "hostnamectl", "timedatectl", "swapon",
)  # fmt: skip

_REFUSAL = """#!/bin/sh
echo "{name}: refused by local_aws: {reason}" >&2
exit 1
"""

_SHUTDOWN = """#!/bin/sh
# shutdown [-h|-P|-r|-c] [now|+MINUTES|HH:MM]; poweroff and halt are `shutdown now`, reboot is `shutdown -r now`.
action={action}; when=now; given=
for argument in "$@"; do
  case "$argument" in
    -c) action=cancel ;;
    -r) action=reboot ;;
    -h|-P|-H|--poweroff|--halt|-f|-n|-k|--no-wall) ;;
    now) when=now; given=yes ;;
    +*) when="${{argument#+}}"; given=yes ;;
    [0-9]*:[0-9]*) when=$(( ($(date -d "$argument" +%s) - $(date +%s) + 86400) % 86400 / 60 )); given=yes ;;
    *) ;;
  esac
done
if [ "{name}" = shutdown ] && [ -z "$given" ] && [ "$action" != cancel ]; then when=1; fi
if [ "$when" = now ]; then due=$(date +%s); else due=$(( $(date +%s) + when * 60 )); fi
printf '%s %s\\n' "$action" "$due" > "{control}.partial" && mv "{control}.partial" "{control}"
if [ "$action" = cancel ]; then
  echo "Shutdown cancelled."
else
  echo "Shutdown scheduled for $(date -d "@$due" 2>/dev/null || echo "$due")."
fi
"""

_SYSTEMCTL = """#!/bin/sh
for argument in "$@"; do
  case "$argument" in
    poweroff|halt) exec "{folder}/poweroff" ;;
    reboot) exec "{folder}/reboot" ;;
    amazon-ssm-agent|amazon-ssm-agent.service) echo "amazon-ssm-agent: local_aws is the agent"; exit 0 ;;
  esac
done
echo "systemctl: refused by local_aws: an instance here is a group of processes and has no services ($*)" >&2
exit 1
"""

_SUDO = """#!/bin/sh
# An instance's commands run as the user they will ever be.
while [ $# -gt 0 ]; do
  case "$1" in
    -u|-g|-C|-p) shift 2 ;;
    --) shift; break ;;
    -*) shift ;;
    *=*) export "$1"; shift ;;
    *) break ;;
  esac
done
[ $# -eq 0 ] || exec "$@"
"""


def install(folder: Path, control: Path) -> None:
    """Write the shims; a shutdown in the instance leaves `<action> <epoch seconds>` in `control`."""
    folder.mkdir(parents=True, exist_ok=True)
    reasons = {
        **dict.fromkeys(REFUSED_PACKAGE_MANAGERS, "packages would be installed on the host of the instance"),
        **dict.fromkeys(REFUSED_SERVICES, "an instance here is a group of processes and has no services"),
        **dict.fromkeys(REFUSED_ADMINISTRATION, "it would change the host of the instance"),
    }
    scripts = {name: _REFUSAL.format(name=name, reason=reason) for name, reason in reasons.items()}
    for name, action in (
        ("shutdown", "poweroff"),
        ("poweroff", "poweroff"),
        ("halt", "poweroff"),
        ("reboot", "reboot"),
    ):
        scripts[name] = _SHUTDOWN.format(name=name, action=action, control=control)
    scripts["systemctl"] = _SYSTEMCTL.format(folder=folder)
    scripts["sudo"] = _SUDO
    for name, text in scripts.items():
        path = folder / name
        path.write_text(text)
        path.chmod(0o755)
    for name in ("python3", "python"):
        link = folder / name
        if not link.exists():
            # Not a link: a virtual environment finds itself by the path it is called by.
            link.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
            link.chmod(0o755)
