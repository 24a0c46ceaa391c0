# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""LVM's commands, and what of LVM's configuration on this host matters to volumes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import typing as t

from .._errors import Failed, Unavailable

_PATHS = "/usr/sbin:/sbin:/usr/bin:/bin"
_ENOUGH = 120  # seconds; what an LVM command needs does not grow with the data
_SECTIONS = ("devices", "activation")  # whole ones: to name a setting that this version does not know is an error
_DEVICES_FILES = "/etc/lvm/devices"


def run(*arguments: str) -> str:
    """What an LVM command prints. Raises Failed with LVM's own last words, Unavailable without the package."""
    program = shutil.which("lvm", path=_PATHS)
    if program is None:
        raise Unavailable("LVM is not installed on this host; install the package lvm2")
    if os.geteuid() != 0:
        raise Unavailable("LVM needs root on this host; run the task with become: true")
    try:
        done = subprocess.run(
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=_ENOUGH,
            check=False,
            env={"LC_ALL": "C", "PATH": _PATHS, "LVM_SUPPRESS_FD_WARNINGS": "1"},
        )
    except OSError as error:
        raise Failed(f"{arguments[0]} can't be run: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{arguments[0]} did not end within {_ENOUGH} s; look what LVM waits for (dmsetup info, /run/lock/lvm) and run again") from error
    if done.returncode != 0:
        raise Failed(f"{arguments[0]} failed: {_last_words(done.stderr) or f'exit status {done.returncode}'}")
    return done.stdout.decode("utf-8", "replace")


def _last_words(stderr: bytes) -> str:
    """The first line that is no warning: it names the cause, later ones only what could not go on."""
    lines = [line.strip() for line in stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    causes = [line for line in lines if not line.startswith("WARNING")]
    return (causes or lines or [""])[0].rstrip(".")


def settings(lvm: t.Callable[..., str]) -> t.Dict[str, t.Any]:
    """LVM's settings, by their short names."""
    return parse_settings(lvm("lvmconfig", "--type", "full", *_SECTIONS))


def parse_settings(text: str) -> t.Dict[str, t.Any]:
    """What `lvmconfig` prints, one setting a line, as values."""
    found = {}
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        try:
            if equals:
                found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


def scans_volumes(config: t.Dict[str, t.Any], group: str) -> bool:
    """Whether LVM on this host looks for volume groups inside the volumes of a group.

    A guest's volume group would then be shown, and activated, on the storage host. Any one of these keeps LVM
    out: devices/scan_lvs=0 (the default since 2.03), a devices file, or a filter that rejects every name of them.
    """
    if not config.get("scan_lvs", 1):  # 2.02 did not ask
        return False
    if config.get("use_devicesfile") and os.path.exists(os.path.join(_DEVICES_FILES, str(config.get("devicesfile") or "system.devices"))):
        return False
    mapped = f"/dev/mapper/{group.replace('-', '--')}-volume--0"
    names = [f"/dev/{group}/volume-0", mapped, "/dev/dm-0", "/dev/disk/by-id/dm-name-" + mapped.rsplit("/", 1)[1]]
    return not any(rejects(_patterns(config.get(key)), names) for key in ("global_filter", "filter"))


def _patterns(value: t.Any) -> t.List[str]:
    return [value] if isinstance(value, str) else list(value or [])


def rejects(patterns: t.Sequence[str], names: t.Sequence[str]) -> bool:
    """Whether a filter of lvm.conf(5) rejects a device: each name goes by the first pattern that it matches,
    one accepted name accepts the device."""
    verdicts = [_verdict(patterns, name) for name in names]
    return "a" not in verdicts and "r" in verdicts


def _verdict(patterns: t.Sequence[str], name: str) -> t.Optional[str]:
    for pattern in patterns:
        expression = pattern[2:-1]  # a|...| or r/.../, whatever the two marks are
        try:
            if re.search(expression, name):
                return pattern[:1]
        except re.error:
            continue
    return None
