# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`make demo`: a volume finds its way into a running guest, and back; `make demo-ceph`: the same with a Ceph cluster.

python -m tests.demo [--ceph] [--keep | --stop]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import sys

from tests.demo.story import Story
from tests.rig.collection import ROOT
from tests.rig.guest import GuestError
from tests.rig.stage import CephStage, Stage, StageError, end_kept

LOG, KEPT = ROOT / ".cache" / "demo.log", ROOT / ".cache" / "demo"
VOLUME, INSTANCE, SIZE_GIB = "db-data", "web-1", 1
WORDS = "written by web-1, read on the storage"
MIB = 4
DISK = r"^DISK-ADD (\w+) serial=(\S*) size=(\d+)\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.demo")
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--keep", action="store_true", help="leave everything running to play with")
    way.add_argument("--stop", action="store_true", help="end what an earlier --keep left running")
    parser.add_argument("--ceph", action="store_true", help="the volume is in the pool of a Ceph cluster")
    asked = parser.parse_args()
    if os.geteuid() != 0:
        print("the demo starts a tgtd and a libvirtd of its own, which needs root; use `make demo`", file=sys.stderr)
        return 2
    if asked.keep or asked.stop:
        ended = end_kept(KEPT)
    if asked.stop:
        print(f"ended {ended} processes" if ended else "nothing of the demo was left running")
        return 0
    # Ctrl-C and a plain kill both unwind the stack that ends what was started
    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, signal.default_int_handler)
    return tell(CephStage(LOG) if asked.ceph else Stage(LOG), asked.keep)


def tell(stage: Stage, keep: bool) -> int:
    story = Story()
    story.title("stackless.block: a volume finds its way into a running guest, and back")
    try:
        hosts(story, stage)
        guest(story, stage)
        attach(story, stage)
        own_words(story, stage)
        same_bytes(story, stage)
        again(story, stage)
        if keep:
            left_running(story, stage)
            return 0
        detach(story, stage)
        stop(story, stage)
    except (StageError, GuestError, RuntimeError) as error:
        story.fails(f"{error}\n\nthe whole log: {LOG.relative_to(ROOT)}")
        return 1
    except KeyboardInterrupt:
        story.fails("interrupted; everything that was started is ended")
        return 130
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        stage.close()
    story.ends("That was the walk.")
    return 0


def hosts(story: Story, stage: Stage) -> None:
    with story.chapter("Two hosts, played by this machine"):
        stage.open_hosts()
        stage.write_inventory()
        story.says("storage-1", stage.introduced())
        story.says("compute-1", f"libvirtd, process {stage.libvirtd.pid}, no kernel module for the storage")


def guest(story: Story, stage: Stage) -> None:
    with story.chapter("A guest boots"):
        seconds = stage.open_guest(INSTANCE)
        how = "on KVM" if stage.guest.accel == "kvm" else "emulated, as KVM does not work here"
        story.says(INSTANCE, f"Linux {stage.guest.run('uname -r').strip()}, {how}, ready after {seconds:.1f} s")
        disks = [name for name in stage.guest.run("ls /sys/block").split() if name.startswith(("sd", "vd"))]
        if disks:
            raise StageError(f"the guest has disks before it was given one: {disks}")
        story.says(INSTANCE, "no disks yet")


def attach(story: Story, stage: Stage) -> None:
    wish = {"volumes": [{"name": VOLUME, "size_gib": SIZE_GIB}], "attachments": [{"volume": VOLUME, "instance": INSTANCE}]}
    stage.write("wish.yml", json.dumps(wish))
    with story.chapter("A wish, and the playbook that makes it true"):
        for name, value in wish.items():
            story.says(f"{name}:", flow(value))
        played(story, stage, "attach")
        record = stage.record()
        story.says("storage-1", f"volume {record['id']}, {record['status']}")
        if record["status"] != "in-use":
            raise StageError(f"the volume is {record['status']} after the attach, not in-use")


def own_words(story: Story, stage: Stage) -> None:
    with story.chapter("The guest's own words"):
        found = stage.guest.wait_for(DISK)
        disk, serial, size = found.groups()
        story.says(INSTANCE, found.group(0))
        # virtio-blk shows the guest 20 characters of a serial
        if not serial or not stage.record()["id"].startswith(serial) or int(size) != SIZE_GIB << 30:
            raise StageError(f"that is not the volume {stage.record()['id']} of {SIZE_GIB << 30} bytes")
        story.proves(f"/dev/{disk} is the volume: its id begins so, and {size} bytes are {SIZE_GIB} GiB")


def same_bytes(story: Story, stage: Stage) -> None:
    with story.chapter("It writes, and the storage has it"):
        disk = stage.guest.wait_for(DISK).group(1)
        make = f"(echo '{WORDS}'; dd if=/dev/urandom bs=1M count={MIB} 2>/dev/null) >/written"
        stage.guest.run(f"{make} && dd if=/written of=/dev/{disk} bs=1M conv=fsync 2>/dev/null", timeout=60)
        wrote = stage.guest.run("sha256sum </written").split()[0]
        story.says(INSTANCE, f"a line of text and {MIB} MiB of noise, sha256 {wrote[:16]}…")
        volume = stage.record()["id"]
        data = stage.bytes_of(volume, len(WORDS) + 1 + (MIB << 20))
        line, read = data.partition(b"\n")[0][:200], hashlib.sha256(data).hexdigest()
        story.says("storage-1", f"volume-{volume[:8]}… begins with {line.decode(errors='replace')!r}, sha256 {read[:16]}…")
        if read != wrote:
            raise StageError(f"the volume holds other bytes: sha256 {read}, the guest wrote {wrote}")
        story.proves("the same bytes")


def again(story: Story, stage: Stage) -> None:
    with story.chapter("The same play a second time"):
        changed = played(story, stage, "attach")
        if any(changed.values()):
            raise StageError("the second run changed something")
        story.proves("nothing to do, nothing done")


def detach(story: Story, stage: Stage) -> None:
    with story.chapter("And backwards"):
        played(story, stage, "detach")
        story.says(INSTANCE, stage.guest.wait_for(r"^DISK-DEL \w+\n").group(0))
        record, exports = stage.record(), stage.exports()
        if record["status"] != "available" or exports:
            raise StageError(f"after the detach the volume is {record['status']} and {exports or 'nothing'} is exported")
        story.says("storage-1", f"volume {record['id']}, {record['status']}, no export left")
        story.proves("the guest let go before the storage did")


def stop(story: Story, stage: Stage) -> None:
    with story.chapter("Curtain"):
        pids = [*(pid for pid, _directory in stage.storage_processes()), stage.libvirtd.pid]
        stage.close()
        left = [pid for pid in pids if os.path.exists(f"/proc/{pid}")]
        if left or stage.directory.exists():
            raise StageError(f"still there: processes {left}, {stage.directory}")
        story.says("", "the guest and all daemons have ended, their files are gone")


def left_running(story: Story, stage: Stage) -> None:
    stage.keep(KEPT)
    story.title("It runs on. Some things to try:")
    story.types(f"virsh -c '{stage.libvirtd.uri}' domblklist {INSTANCE}")
    story.types(stage.look_at_record())
    story.types(f"tail -f {stage.guest.log}")
    story.types(stage.command("detach"))
    story.types(stage.command("attach") + " --check --diff")
    story.ends("`make demo-stop` ends it.")


def played(story: Story, stage: Stage, playbook: str) -> dict[str, int]:
    """Runs a playbook in front of the audience: the command, and what it changed where."""
    story.types(stage.command(playbook))
    changed = stage.play(playbook)
    for host, number in changed.items():
        story.says(host, f"changed={number}")
    return changed


def flow(value: list) -> str:
    """A list of small dicts as YAML on one line."""
    return "[" + ", ".join("{" + ", ".join(f"{k}: {v}" for k, v in entry.items()) + "}" for entry in value) + "]"


if __name__ == "__main__":
    sys.exit(main())
