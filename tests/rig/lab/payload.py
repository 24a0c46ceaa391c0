# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The checkout's plugins and what they need of Ansible, packed to be sent to a machine and run there."""

from __future__ import annotations

import compileall
import functools
import io
import py_compile
import shutil
import tarfile
import tempfile
from pathlib import Path

import ansible
import ansible.release

from tests.rig.collection import ROOT
from tests.rig.lab.cache import key

# where a machine keeps it, a directory for every version
PLACE = "/root/lab"


def payload() -> tuple[str, bytes]:
    """The version of what is packed, and the archive."""
    state = [(str(path.relative_to(ROOT)), path.stat().st_mtime_ns, path.stat().st_size) for path in sorted((ROOT / "plugins").rglob("*.py"))]
    version = key(state, ansible.release.__version__, Path(__file__))
    return version, packed(version)


@functools.lru_cache(maxsize=2)
def packed(version: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="stackless-payload-") as temporary:
        tree = Path(temporary)
        source = Path(ansible.__file__).parent
        ignore = shutil.ignore_patterns("__pycache__")
        for name in ("_vendor", "module_utils"):
            shutil.copytree(source / name, tree / "ansible" / name, ignore=ignore)
        for name in ("__init__.py", "release.py"):
            shutil.copy(source / name, tree / "ansible" / name)
        for name in ("modules", "module_utils"):
            shutil.copytree(ROOT / "plugins" / name, tree / "ansible_collections/stackless/block/plugins" / name, ignore=ignore)
        # compiled here, where it takes a tenth of the time
        compileall.compile_dir(tree, quiet=2, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
        packing = io.BytesIO()
        with tarfile.open(fileobj=packing, mode="w:gz", compresslevel=3) as archive:
            archive.add(tree, arcname=".")
        return packing.getvalue()
