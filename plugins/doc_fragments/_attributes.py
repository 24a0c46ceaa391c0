# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this doc fragment is **PRIVATE** to the collection: it can change at any time.

from __future__ import annotations


class ModuleDocFragment(object):

    # What holds for every module that manages something
    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    support: full
    description: Can run in C(check_mode); predicts exactly what a real run would do and writes nothing.
  diff_mode:
    support: full
    description: Returns what changes, or would change, when run with C(--diff). Secrets are masked.
  idempotent:
    support: full
    description: A second run with the same options changes nothing and reports RV(ignore:changed=false).
"""

    # What holds for every module that only looks
    INFO = r"""
options: {}
attributes:
  check_mode:
    support: full
    description: Can run in C(check_mode); the module never changes anything.
  diff_mode:
    support: N/A
    description: There is nothing to show a difference of.
  idempotent:
    support: full
    description: The module only looks.
"""
