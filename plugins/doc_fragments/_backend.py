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
          - V(lvm) keeps every volume as a logical volume, with its record in the tags of it (C(lvs -o +lv_tags)). What a snapshot kept is the
            logical volume C(_snapshot-) and its id.
          - V(rbd) keeps every volume as an image in a pool of a Ceph cluster, with its record in the image-meta of it
            (C(rbd image-meta list)). Any host that reaches the cluster may do.
        type: str
        choices: [file, lvm, rbd]
        required: true
      path:
        description:
          - For O(backend.driver=file), the absolute path of the directory. It must exist.
        type: path
      pool:
        description:
          - For O(backend.driver=lvm), the name of the volume group. It must exist.
          - Logical volumes that others made in it are left alone.
          - For O(backend.driver=rbd), the name of the pool. It must exist, and be initialised for RBD (C(rbd pool init)).
          - Images that others made in it are left alone, those of a Cinder as well.
        type: str
      thin_pool:
        description:
          - For O(backend.driver=lvm), the name of a thin pool in the volume group. It must exist, and zero new blocks, which is LVM's default.
        type: str
      namespace:
        description:
          - For O(backend.driver=rbd), a namespace of the pool. It must exist.
        type: str
        version_added: 0.2.0
      user:
        description:
          - For O(backend.driver=rbd), the name of the Ceph user, without C(client.). The capabilities C(profile rbd) of monitors and OSDs are enough.
        type: str
        default: cinder
        version_added: 0.2.0
      conf:
        description:
          - For O(backend.driver=rbd), the absolute path of Ceph's configuration on this host, which names the monitors.
        type: path
        default: /etc/ceph/ceph.conf
        version_added: 0.2.0
      keyring:
        description:
          - For O(backend.driver=rbd), the absolute path of the file with the user's key on this host. By default the one that O(backend.conf) names,
            or one of those where Ceph looks, such as C(/etc/ceph/ceph.client.cinder.keyring).
        type: path
        version_added: 0.2.0
      secret_uuid:
        description:
          - For O(backend.driver=rbd), the UUID under which compute hosts keep the user's key in libvirt. The default is made of user and cluster.
        type: str
        version_added: 0.2.0
      data_pool:
        description:
          - For O(backend.driver=rbd), a pool for the data of new volumes beside their headers, such as an erasure-coded one. It must exist.
        type: str
        version_added: 0.2.0
      features:
        description:
          - For O(backend.driver=rbd), the features of the images of new volumes, by Ceph's names. By default those that O(backend.conf) or Ceph itself has.
          - Those that bar several writers (C(exclusive-lock), C(object-map), C(fast-diff), C(journaling)) are left out where a volume is multiattach.
        type: list
        elements: str
        version_added: 0.2.0
      max_clone_depth:
        description:
          - For O(backend.driver=rbd), how many clones may stand one behind the other. A volume that would be one more gets its own copy of the data
            when it is made; with V(0) every one does.
        type: int
        default: 5
        version_added: 0.2.0
      timeout:
        description:
          - For O(backend.driver=rbd), how long one question to the cluster may take, in seconds.
        type: int
        default: 10
        version_added: 0.2.0
      allocation:
        description:
          - How a new volume takes its space when it does not say it.
          - For O(backend.driver=file), V(sparse) as it is written, which is the default, or V(full) at once.
          - For O(backend.driver=lvm), V(thin) as it is written, which is the default with O(backend.thin_pool),
            or V(thick) at once, which is the default without.
          - For O(backend.driver=rbd), always V(thin).
          - A V(thick) volume is overwritten with zeros before it becomes available, also where it grows. That takes as long as
            the storage takes to write so much.
        type: str
        choices: [sparse, full, thin, thick]
      max_over_subscription_ratio:
        description:
          - How many times what a thin pool, or a pool of Ceph, holds may be promised to volumes. More is refused.
        type: float
        default: 20.0
      max_pool_used_percent:
        description:
          - From which percentage of used data or metadata a thin pool, or a pool of Ceph, takes no new volume, and no volume in it is extended.
            A thin pool takes no new snapshot then either.
        type: float
        default: 95.0
requirements:
  - For O(backend.driver=lvm), the package C(lvm2), and root.
  - For O(backend.driver=rbd), the packages C(python3-rados) and C(python3-rbd), and a user who may read the key.
"""
