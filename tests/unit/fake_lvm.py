# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""LVM's commands as the lvm driver uses them, on a volume group in memory. It refuses what the real one refuses, in its words.

Every extent holds a word instead of data, so that a test sees what a volume would show: `old` is what someone left there.
It stands in for `_block` as well. tests/lab/test_lvm.py and test_lvm_snapshots.py do the same with the real ones.
"""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass, field

from ansible_collections.stackless.block.plugins.module_utils._errors import Failed, Refused

EXTENT = 1 << 28
TAG = re.compile(r"[A-Za-z0-9_+.][A-Za-z0-9_+./=!:&#-]{0,1023}")
CLEAN = ["--zero", "y", "--wipesignatures", "y"]


class Killed(BaseException):
    """The process ends here, as with kill -9."""


@dataclass
class Lv:
    extents: list[int] = field(default_factory=list)  # of a thick one: where in the volume group
    size: int = 0
    tags: set[str] = field(default_factory=set)
    pool: str = ""
    layout: str = "linear"
    active: bool = True
    open: bool = False
    words: list[str] = field(default_factory=list)  # of a thin one: what it holds


class FakeLvm:
    def __init__(self, extents: int = 64, pool_extents: int = 16) -> None:
        self.data = ["old"] * extents
        self.seqno = 0
        self.commands: list[tuple[str, ...]] = []
        self.lvs: dict[str, Lv] = {}
        self.pool = {"data_percent": "10.00", "metadata_percent": "11.04", "attr": "twi-aotz--"}
        self.vg_attr = "wz--n-"
        self.mda_free = "519168"
        self.settings = "scan_lvs=0\nuse_devicesfile=0\nglobal_filter=[\"a|.*|\"]\nfilter=[\"a|.*|\"]\nthin_pool_autoextend_threshold=100\n"
        self.discards = False  # devices/issue_discards
        self.talks = True  # whether commands tell what they did
        self.before_write = lambda: None
        self.passing = lambda command: None  # hears of every command, and of what is done to devices
        if pool_extents:
            self.lvs["thin"] = Lv(self._take(pool_extents), pool_extents * EXTENT, layout="thin,pool")

    def __call__(self, command: str, *arguments: str) -> str:
        self.passing(command)
        self.commands.append((command, *arguments))
        return getattr(self, "_lvs" if command == "lvs" else command)(list(arguments))

    # ---- looking

    def fullreport(self, arguments):
        if arguments[-1] != "volumes":
            raise Failed(f'fullreport failed: Volume group "{arguments[-1]}" not found')
        vg = {"vg_name": "volumes", "vg_size": str(len(self.data) * EXTENT), "vg_free": str(len(self.free()) * EXTENT)}
        vg.update(vg_extent_size=str(EXTENT), vg_attr=self.vg_attr, vg_mda_free=self.mda_free)
        return json.dumps({"report": [{"vg": [vg], "lv": [self._row(name) for name in sorted(self.lvs)]}]})

    def _row(self, name):
        lv = self.lvs[name]
        pool = lv.layout == "thin,pool"
        attr = self.pool["attr"] if pool else f"{'V' if lv.pool else '-'}wi-{'-a'[lv.active]}{'-o'[lv.open]}{'tz' if lv.pool else '--'}--"
        percents = {key: self.pool[key] if pool else "" for key in ("data_percent", "metadata_percent")}
        if lv.pool and lv.active:
            percents["data_percent"] = f"{100 - 100 * lv.words.count('zero') / len(lv.words):.2f}"
        row = {"lv_name": name, "lv_size": str(lv.size), "lv_tags": ",".join(sorted(lv.tags)), "lv_attr": attr}
        return {**row, "lv_layout": lv.layout, "pool_lv": lv.pool, **percents}

    def lvmconfig(self, arguments):
        return self.settings

    def _lvs(self, arguments):
        lv = self._named(arguments[-1])
        ranges = [{"seg_pe_ranges": " ".join(f"/dev/vdb:{n}-{n}" for n in lv.extents)}]
        return json.dumps({"report": [{"lv": ranges}]})

    # ---- changing

    def lvcreate(self, arguments):
        assert arguments.pop(0) == "--yes"
        place, name, tags = arguments.pop(), _taken(arguments, "--name")[0], set(_taken(arguments, "--addtag"))
        if name in self.lvs:
            raise Failed(f'lvcreate failed: Logical Volume "{name}" already exists in volume group "volumes"')
        if re.match("snapshot|pvmove", name):
            raise Failed(f'lvcreate failed: Names starting "{name[:8]}" are reserved. Please choose a different LV name')
        if arguments[0] == "--snapshot":
            origin = self._named(place)
            assert origin.pool and arguments[1:] in (["--setactivationskip", "y"], ["--setactivationskip", "n", "--activate", "y"])
            made = Lv([], origin.size, tags, origin.pool, "thin,sparse", active="n" in arguments, words=list(origin.words))
        elif arguments[0] == "--type":
            assert arguments[:4] == ["--type", "thin", "--thinpool", "thin"] and arguments[4] == "--virtualsize" and "thin" in self.lvs
            size = _size(arguments[5])
            made = Lv([], size, tags, pool="thin", layout="thin,sparse", words=["zero"] * (size // EXTENT))
        else:
            assert arguments[:5] == [*CLEAN, "--size"] and place == "volumes"
            made = Lv(self._take(_size(arguments[5]) // EXTENT), _size(arguments[5]), tags)
        self._write(tags)
        self.lvs[name] = made
        return f'  Logical volume "{name}" created.\n' if self.talks else ""

    def lvextend(self, arguments):
        assert arguments[:2] == ["--yes", "--size"]
        lv, size = self._named(arguments[3]), _size(arguments[2])
        if size <= lv.size:
            raise Failed("lvextend failed: New size given not larger than existing size")
        self._write(())
        if not lv.pool:
            wanted = [int(place.split(":")[1].split("-")[0]) for place in arguments[4:]]
            lv.extents += self._take((size - lv.size) // EXTENT, wanted)
        else:
            lv.words += ["zero"] * ((size - lv.size) // EXTENT)
        lv.size = size
        return ""

    def lvchange(self, arguments):
        lv = self._named(arguments.pop())
        if arguments[:1] == ["--activate"]:
            assert arguments in (["--activate", "y", "--ignoreactivationskip"], ["--activate", "n"])
            if arguments[1] == "n" and lv.open:
                raise Failed("lvchange failed: Logical volume volumes/x in use")
            lv.active = arguments[1] == "y"
            return ""
        gone, fresh = set(_taken(arguments, "--deltag")), set(_taken(arguments, "--addtag"))
        if not self._selected(lv, arguments):
            return ""
        self._write(fresh)
        lv.tags = (lv.tags - gone) | fresh
        return "  Logical volume volumes/x changed.\n" if self.talks else ""

    def lvremove(self, arguments):
        name = arguments[-1].split("/")[1]
        lv = self._named(arguments.pop())
        assert arguments[:2] == ["--yes", "--force"]
        discards = self.discards and _taken(arguments, "--config") != ["devices/issue_discards=0"]
        if not self._selected(lv, [word for word in arguments[2:] if "config" not in word and "discards" not in word]):
            return ""
        if lv.open:
            raise Failed(f"lvremove failed: Logical volume volumes/{name} in use")
        self._write(())
        if discards:
            for extent in lv.extents:
                self.data[extent] = "old"  # what a device may return after a discard
        del self.lvs[name]
        return f'  Logical volume "{name}" successfully removed.\n' if self.talks else ""

    def lvrename(self, arguments):
        group, old, new = arguments
        lv = self._named(f"{group}/{old}")
        assert new not in self.lvs
        self._write(())
        self.lvs[new] = lv
        del self.lvs[old]
        return ""

    # ---- the devices

    @contextlib.contextmanager
    def alone(self, path):
        lv = self._named(path[len("/dev/") :])
        assert lv.active, "there is no such device"
        if lv.open:
            raise Refused(f"{path} can't be overwritten: it is in use by the target; let go of it first")
        yield lv

    def zero(self, lv, start, end):
        if start < end:
            self.passing("zero")
            self.commands.append(("zero",))
            self._put(lv, start // EXTENT, ["zero"] * ((end - start) // EXTENT))

    def empty(self, lv, size):
        assert lv.pool
        self.zero(lv, 0, size)

    def copy(self, source, lv, size, changed_only):
        origin = self._named(source[len("/dev/") :])
        assert origin.active and changed_only == bool(lv.pool)
        self.passing("copy")
        self.commands.append(("copy",))
        self._put(lv, 0, self.shows(origin)[: size // EXTENT])

    def shows(self, lv):
        """What reading it would show."""
        return list(lv.words) if lv.pool else [self.data[extent] for extent in lv.extents]

    def _put(self, lv, first, words):
        self.seqno += 1
        for number, word in enumerate(words, first):
            if lv.pool:
                lv.words[number] = word
            else:
                self.data[lv.extents[number]] = word

    # ---- inside

    def free(self):
        taken = {extent for lv in self.lvs.values() for extent in lv.extents}
        return [n for n in range(len(self.data)) if n not in taken]

    def _take(self, count, wanted=()):
        free = [n for n in self.free() if not wanted or n in wanted]
        if len(free) < count:
            raise Failed(f'lvcreate failed: Volume group "volumes" has insufficient free space ({len(free)} extents): {count} required')
        return free[:count]

    def _named(self, path):
        group, _slash, name = path.partition("/")
        assert group == "volumes"
        if name not in self.lvs:
            raise Failed(f'lvchange failed: Failed to find logical volume "{path}"')
        return self.lvs[name]

    def _selected(self, lv, arguments):
        assert len(arguments) == 2 and arguments[0] == "--select", arguments
        self.before_write()
        found = re.fullmatch(r'lv_tags=([\[{])((?:"[^"]+"(?: && )?)+)[\]}]', arguments[1])
        asked = set(re.findall(r'"([^"]+)"', found.group(2)))
        return asked == lv.tags if found.group(1) == "[" else asked <= lv.tags

    def _write(self, tags):
        for tag in tags:
            assert TAG.fullmatch(tag), f"LVM takes no tag {tag}"
        self.seqno += 1

    def __getattr__(self, name):
        raise AssertionError(f"the driver has no business with {name}")


def _taken(arguments, option):
    """The values of an option, which are taken out of the arguments."""
    values = [arguments[n + 1] for n, word in enumerate(arguments) if word == option]
    for value in values:
        at = arguments.index(option)
        assert arguments[at + 1] == value
        del arguments[at : at + 2]
    return values


def _size(text):
    assert text.endswith("b")
    return -(-int(text[:-1]) // EXTENT) * EXTENT
