# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this doc fragment is **PRIVATE** to the collection: it can change at any time.
# Keep in sync with ENGINE_OPTIONS in module_utils/_reconcile.py.

from __future__ import annotations


class ModuleDocFragment(object):

    DOCUMENTATION = r"""
options:
  timeout:
    description:
      - How long to wait, in seconds, until the changes of this task have come true.
    type: int
    default: 60
  lock_timeout:
    description:
      - How long to wait, in seconds, for another run that works on the same things of this host.
    type: int
    default: 120
  assume:
    description:
      - RV(ignore:results) of earlier tasks of the same play, which this task builds on.
      - Only looked at in check mode, where those tasks predicted things that do not exist yet.
    type: list
    elements: dict
    default: []
"""
