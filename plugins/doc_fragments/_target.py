# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this doc fragment is **PRIVATE** to the collection: it can change at any time.
# Keep in sync with TARGET_OPTIONS in module_utils/_targets/__init__.py.

from __future__ import annotations


class ModuleDocFragment(object):

    DOCUMENTATION = r"""
options:
  helper:
    description:
      - The target daemon. V(tgt) is C(tgtd) of the package C(tgt), which needs no kernel module. V(lio) is the target of the
        Linux kernel, which C(targetcli) and C(targetctl) manage too.
    type: str
    choices: [tgt, lio]
    default: tgt
  control_port:
    description:
      - For O(helper=tgt), the control port of C(tgtd), as its option C(-C).
    type: int
    default: 0
  ipc_socket:
    description:
      - For O(helper=tgt), the control socket of C(tgtd) without the control port, as its environment C(TGT_IPC_SOCKET).
    type: path
    default: /var/run/tgtd/socket
  config_dir:
    description:
      - For O(helper=tgt), the directory where targets are saved, one file each, readable by root only.
        It must exist. The default is the one that the distribution's service loads when it starts.
    type: path
    default: /etc/tgt/conf.d
  saveconfig:
    description:
      - For O(helper=lio), the file from which C(targetctl restore) makes the targets when the host starts. Of it, only what the
        task changed is replaced, at once and once a task. The default is that of the installed rtslib, on Debian
        C(/etc/rtslib-fb-target/saveconfig.json).
    type: path
  return_secrets:
    description:
      - Whether RV(ignore:credentials) is returned, which holds the CHAP passwords. Set C(no_log=true) on such a task.
    type: bool
    default: false
requirements:
  - For O(helper=tgt), a running C(tgtd) (package C(tgt)), and root.
  - For O(helper=lio), C(rtslib-fb) (package C(python3-rtslib-fb)) for the Python that runs the module, and root.
"""
