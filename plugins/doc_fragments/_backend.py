# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this doc fragment is **PRIVATE** to the collection: it can change at any time.
# Keep in sync with BACKEND_OPTIONS in module_utils/_volumes/__init__.py.

from __future__ import annotations


class ModuleDocFragment(object):

    DOCUMENTATION = r"""
options:
  backend:
    description:
      - Where the volumes live. One dictionary, usually a host variable of the storage host.
    type: dict
    required: true
    suboptions:
      driver:
        description:
          - V(file) keeps every volume as a raw file in a directory, with its record beside it.
        type: str
        choices: [file]
        required: true
      path:
        description:
          - For O(backend.driver=file), the absolute path of the directory. It must exist.
        type: path
      allocation:
        description:
          - Whether a new volume takes its space as it is written (V(sparse)) or at once (V(full)).
        type: str
        choices: [sparse, full]
        default: sparse
"""
