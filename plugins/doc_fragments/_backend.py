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
          - V(lvm) keeps every volume as a logical volume, with its record in the tags of it (C(lvs -o +lv_tags)).
        type: str
        choices: [file, lvm]
        required: true
      path:
        description:
          - For O(backend.driver=file), the absolute path of the directory. It must exist.
        type: path
      pool:
        description:
          - For O(backend.driver=lvm), the name of the volume group. It must exist.
          - Logical volumes that others made in it are left alone.
        type: str
      thin_pool:
        description:
          - For O(backend.driver=lvm), the name of a thin pool in the volume group. It must exist, and zero new blocks, which is LVM's default.
        type: str
      allocation:
        description:
          - How a new volume takes its space when it does not say it.
          - For O(backend.driver=file), V(sparse) as it is written, which is the default, or V(full) at once.
          - For O(backend.driver=lvm), V(thin) as it is written, which is the default with O(backend.thin_pool),
            or V(thick) at once, which is the default without.
          - A V(thick) volume is overwritten with zeros before it becomes available, also where it grows. That takes as long as
            the storage takes to write so much.
        type: str
        choices: [sparse, full, thin, thick]
      max_over_subscription_ratio:
        description:
          - How many times what a thin pool holds may be promised to volumes. More is refused.
        type: float
        default: 20.0
      max_pool_used_percent:
        description:
          - From which percentage of used data or metadata a thin pool takes no new volume, and no volume in it is extended.
        type: float
        default: 95.0
requirements:
  - For O(backend.driver=lvm), the package C(lvm2), and root.
"""
