# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""Images of volumes as resources of the engine: from options to wishes, from states to results."""

from __future__ import annotations

import os
import typing as t
import uuid

from ._errors import Invalid, NotFound
from ._images import Files
from ._manage_volume import OnBackend, utc_now
from ._model.data import as_data
from ._model.image import EXPORTS, Exported
from ._model.volume import check_name
from ._plan_image import ExportWish, plan_image
from ._reconcile import Plan, World


class Images(OnBackend):
    plural = "images"

    def __init__(self, options: t.Dict[str, t.Any]) -> None:
        super().__init__(options)
        self.files = Files()

    def want(self, item: t.Dict[str, t.Any]) -> ExportWish:
        path = self._path(item.get("path"))
        if item.get("state") == "absent":
            return ExportWish(path, present=False)
        if not os.path.isdir(os.path.dirname(path)):
            raise NotFound(f"there is no directory {os.path.dirname(path)} for image {path} on this host; make it, or correct path")
        if item.get("format") not in EXPORTS:
            raise Invalid(f"image {path} is wished without a format; give format, one of {', '.join(EXPORTS)}")
        if item.get("compress") and item["format"] != "qcow2":
            raise Invalid(f"image {path} can't be compressed, as it is {item['format']}; use format=qcow2, or leave compress out")
        return ExportWish(
            path=path,
            volume=check_name(item.get("volume")),
            snapshot=None if item.get("snapshot") is None else check_name(item["snapshot"], "snapshot"),
            format=item["format"],
            compress=bool(item.get("compress")),
            force=bool(item.get("force")),
            checksum=item.get("get_checksum") is not False,
            fresh_id=str(uuid.uuid4()),
            now=utc_now(),
        )

    def _path(self, path: t.Optional[str]) -> str:
        if not path or not os.path.isabs(path) or path.endswith("/"):
            raise Invalid(f"{path!r} is no absolute path of a file; give the path on the storage host where the image shall be")
        path = os.path.normpath(path)
        if os.path.realpath(os.path.dirname(path)) == os.path.realpath(self.backend.where):
            raise Invalid(f"image {path} can't stand among the volumes of {self.backend.where}; choose another directory")
        return path

    def observe(self, wants: t.Sequence[t.Any]) -> World:
        return {**super().observe(wants), **{want.key: self.files.found(want.path) for want in wants}}

    def with_snapshots(self, want: ExportWish) -> t.Tuple[str, ...]:
        return (want.volume,)

    def plan(self, want: ExportWish, world: World) -> Plan:
        return self.warned(plan_image(want, world, self.backend, self.files))

    def show(self, plan: Plan, state: t.Optional[Exported]) -> t.Dict[str, t.Any]:
        return {**as_data(state), "status": "available"} if state else {"status": "deleted"}

    def identify(self, item: t.Dict[str, t.Any]) -> t.Dict[str, t.Any]:
        return {"path": item.get("path")}
