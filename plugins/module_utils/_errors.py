# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""Everything that can go wrong, as one tree.

    StorageError
    ├── Invalid       the wish itself is wrong: a bad name, size 0, a malformed IQN
    ├── NotFound      a thing the wish builds on is not there
    ├── Conflict      someone else holds it, or the world moved under the plan
    ├── Refused       it would lose data or cut off a user
    ├── Busy          someone else holds it and will let go by himself: asked again for a while
    ├── Unavailable   a library, a service or a directory this host needs does not answer
    ├── Failed        a tool or a service was asked and said no
    └── NotSettled    it was asked for, but did not come true in time

Every message is one sentence for a person: what, where, what to do.
"""

from __future__ import annotations


class StorageError(Exception):
    """The root; only its children are raised."""


class Invalid(StorageError):
    pass


class NotFound(StorageError):
    pass


class Conflict(StorageError):
    pass


class Refused(StorageError):
    pass


class Busy(StorageError):
    pass


class Unavailable(StorageError):
    pass


class Failed(StorageError):
    pass


class NotSettled(StorageError):
    pass
