# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this doc fragment is **PRIVATE** to the collection: it can change at any time.
# Keep in sync with REPOSITORY_OPTIONS in module_utils/_backups/__init__.py.

from __future__ import annotations


class ModuleDocFragment(object):

    DOCUMENTATION = r"""
options:
  repository:
    description:
      - Where backups are kept, a repository of restic. One dictionary, usually a variable of all storage hosts. Any number of hosts may use it at once.
      - Every backup in it is compressed, encrypted and authenticated. Who has the password can restore without this collection,
        with C(restic dump SNAPSHOT volume-ID.raw). Without the password nobody can.
    type: dict
    required: true
    suboptions:
      location:
        description:
          - The absolute path of a directory, which may be on NFS, or S3-compatible storage as C(s3:https://HOST/BUCKET/PREFIX).
        type: str
        required: true
      password:
        description:
          - The password of the repository. Either this or O(repository.password_file) is needed.
        type: str
      password_file:
        description:
          - The absolute path of a file on the host that holds the password of the repository.
        type: path
      access_key:
        description:
          - For S3, the id of the access key. By default restic finds it as the AWS tools do, without their profiles.
        type: str
      secret_key:
        description:
          - For S3, the secret access key.
        type: str
      region:
        description:
          - For S3, the region.
        type: str
      ca_file:
        description:
          - For S3, the absolute path of a file on the host with the certificates that are trusted, where the distribution's are not enough.
        type: path
      compression:
        description:
          - How new data is compressed, in restic's words.
        type: str
        choices: [auto, 'off', max]
        default: auto
      cache:
        description:
          - The absolute path of a directory on the host where restic keeps copies of what it looks up, which spares traffic with S3. By default there is none.
        type: path
      create:
        description:
          - Whether the repository is made by the first backup when there is none. Otherwise that is refused, so that a mount that is missing is not filled by
            mistake.
        type: bool
        default: false
requirements:
  - The package C(restic), version 0.14 or newer.
"""
