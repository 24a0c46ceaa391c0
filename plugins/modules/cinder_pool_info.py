#!/usr/bin/python
# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: cinder_pool_info
short_description: Look at what a pool holds, and what it has left
version_added: 0.2.0
description:
  - Returns the capacity of the pool where a backend keeps its volumes, and what should be done before it runs out. Changes nothing.
  - With O(backend.driver=lvm) the pool is the thin pool, or the volume group where no thin pool is given.
  - With O(backend.driver=rbd) the pool is O(backend.data_pool), or O(backend.pool) where that is not given. What it holds and has left is counted
    after replication, and null while the cluster has no manager (ceph-mgr), which is the one who counts.
author:
  - The stackless.block authors (@stackless)
extends_documentation_fragment:
  - stackless.block._attributes.info
  - stackless.block._backend
seealso:
  - module: stackless.block.cinder_volume
  - module: stackless.block.cinder_volume_info
"""

EXAMPLES = r"""
- name: How full is the pool?
  stackless.block.cinder_pool_info:
    backend: {driver: file, path: /srv/volumes}
  register: pool

- name: Stop when something should be done about it
  ansible.builtin.assert:
    that: pool.advice | length == 0
    fail_msg: "{{ pool.advice | join('; ') }}"
"""

RETURN = r"""
pool:
  description: What the pool is.
  returned: success
  type: str
  sample: thin pool volumes/thin
allocation:
  description: How volumes take their space in it.
  returned: success
  type: str
  sample: thin
total_gib:
  description: What the pool holds. Null where nobody knows.
  returned: success
  type: float
  sample: 500.0
free_gib:
  description: What is not written in a thin pool, a pool of Ceph or a file system, or not given away in a volume group. Null where nobody knows.
  returned: success
  type: float
  sample: 320.5
allocated_gib:
  description: What the volumes of this backend were promised, together.
  returned: success
  type: float
  sample: 640.0
provisioned_gib:
  description: All that was promised of the pool, whoever has it.
  returned: success
  type: float
  sample: 700.0
virtual_free_gib:
  description: What may still be promised. In a thin pool or a pool of Ceph as much as O(backend.max_over_subscription_ratio) lets. Null where nobody knows.
  returned: success
  type: float
  sample: 9300.0
over_subscription_ratio:
  description: How many times what the pool holds is promised. Null where nobody knows.
  returned: success
  type: float
  sample: 1.4
max_over_subscription_ratio:
  description: How many times it may be. Null where that has no meaning.
  returned: success
  type: float
  sample: 20.0
data_percent:
  description: How much of a thin pool is written. Null for others.
  returned: success
  type: float
  sample: 35.9
metadata_percent:
  description: How much of the metadata of a thin pool is used. Null for others.
  returned: success
  type: float
  sample: 12.04
advice:
  description: What should be done, one sentence each. Empty when all is well.
  returned: success
  type: list
  elements: str
  sample:
    - thin pool volumes/thin has promised 1.4 times what it holds and does not grow by itself; watch it, or let LVM extend it
      (activation/thin_pool_autoextend_threshold below 100)
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.stackless.block.plugins.module_utils._manage_volume import find_pool
from ansible_collections.stackless.block.plugins.module_utils._reconcile import look
from ansible_collections.stackless.block.plugins.module_utils._volumes import BACKEND_OPTIONS


def main() -> None:
    module = AnsibleModule(
        argument_spec={"backend": {"type": "dict", "required": True, "options": BACKEND_OPTIONS}},
        supports_check_mode=True,
    )
    look(module, find_pool)


if __name__ == "__main__":
    main()
