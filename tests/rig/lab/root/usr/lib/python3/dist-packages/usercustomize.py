# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keeps what Python compiles out of zip archives, as it does by itself for files.

Ansible sends every module with all that it imports in such an archive, and an emulated machine takes seconds to compile it.
"""

from __future__ import annotations

import marshal
import os
import sys
import zipimport

KEPT = "/var/cache/zipimport-" + sys.implementation.cache_tag
compile_source = zipimport._compile_source


def kept_or_compiled(path, source):
    import contextlib  # not by every Python that starts
    import hashlib
    import tempfile

    name = os.path.join(KEPT, hashlib.sha256(source).hexdigest())
    with contextlib.suppress(OSError, EOFError, ValueError, TypeError), open(name, "rb") as file:
        return marshal.load(file)
    code = compile_source(path, source)
    with contextlib.suppress(OSError):
        os.makedirs(KEPT, exist_ok=True)
        handle, new = tempfile.mkstemp(dir=KEPT)
        with open(handle, "wb") as file:
            marshal.dump(code, file)
        os.replace(new, name)
    return code


zipimport._compile_source = kept_or_compiled
