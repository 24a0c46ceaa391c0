# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""Files of ours that others read: nothing in them is secret."""

from __future__ import annotations

import contextlib
import os

from .._errors import Unavailable


def holds(path: str, text: str) -> bool:
    """Whether a file is there and says exactly this."""
    with contextlib.suppress(OSError, ValueError), open(path, encoding="ascii") as file:
        return file.read() == text
    return False


def publish(path: str, text: str, otherwise: str = "") -> None:
    """Writes a file in one change, readable for everybody. `otherwise` is what a person could do where we may not."""
    try:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        with open(f"{path}.new", "w", encoding="ascii") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(text)
        os.replace(f"{path}.new", path)
    except OSError as error:
        raise Unavailable(f"{path} can't be written: {error.strerror}; run the task as root{otherwise}") from error
