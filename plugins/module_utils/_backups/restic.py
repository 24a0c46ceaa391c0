# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection: it can change at any time.

"""Backups in a repository of restic, in a directory or in S3-compatible storage.

A backup is a snapshot with one file, the whole volume. restic cuts that in pieces, keeps each piece once, compressed, encrypted and
authenticated, so that every backup stands for itself and costs what has changed. The record stands in the snapshot's tags:

    volume=db-data   backup=monday   volume_id=0b5e...   size_bytes=21474836480   record={"metadata": ...}

Whoever has the password needs nothing of ours: `restic dump <snapshot> volume-<id>.raw | dd conv=sparse of=...`.

The data goes to restic through a socket whose other end restic has as well: it ends when we say so, never because we died.
Through a pipe, restic would take the end of a killed run for the end of the volume.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import socket
import subprocess
import tempfile
import typing as t
import urllib.parse

from .._errors import Busy, Failed, Invalid, Refused, StorageError, Unavailable
from .._hosts.command import die_together, environment, run
from .._model.backup import Backup, Key, backup_from, backup_record
from .._volumes import Readable
from . import BackupStore

_RESTIC = "restic"
_PIECE = 4 << 20
_GRAIN = 64 << 10  # what is all zeros is not written when a backup is given back
_ZEROS = bytes(_PIECE)
_HOURS = 24 * 3600.0  # a bound, not a guess
_WORDS = 600  # how many characters of what restic says are told
_STUCK = 3600.0  # seconds in which restic takes or gives nothing at all
_PLAIN = ("volume", "name", "volume_id", "size_bytes")  # of a record, what a person looks for; the tag of the name is `backup`
_ABSENT = re.compile(r"unable to open config file: .*(no such file or directory|The specified (bucket|key) does not exist)|repository does not exist")
_LOCATION = re.compile(r"/.*|s3:(https?://)?(\[[0-9A-Fa-f:]+\]|[^@/:\[]+)(:\d+)?/[^@]+")
# what could lead restic elsewhere: set by us, or not at all
_OTHERS = ("RESTIC_REPOSITORY_FILE", "RESTIC_PASSWORD_COMMAND", "RESTIC_KEY_HINT", "RESTIC_CACHE_DIR", "AWS_PROFILE", "AWS_SESSION_TOKEN")


class Restic(BackupStore):
    """A repository, which may not be made yet."""

    def __init__(self, options: t.Dict[str, t.Any]) -> None:
        self.where = options["location"]
        if not _LOCATION.fullmatch(self.where):
            wanted = "give the absolute path of a directory, or s3:https://HOST/BUCKET/PREFIX without a user in it"
            raise Invalid(f"repository.location is {self.where!r}; {wanted}")
        if bool(options.get("password")) == bool(options.get("password_file")):
            raise Invalid("a repository is always encrypted and has one password; give either repository.password or repository.password_file")
        self.options = options
        self._there = True
        self._environment = self._made_environment()

    def _made_environment(self) -> t.Dict[str, str]:
        given = {
            "RESTIC_REPOSITORY": self.where,
            "RESTIC_PASSWORD": self.options.get("password"),
            "RESTIC_PASSWORD_FILE": self.options.get("password_file"),
            "AWS_ACCESS_KEY_ID": self.options.get("access_key"),
            "AWS_SECRET_ACCESS_KEY": self.options.get("secret_key"),
            "AWS_DEFAULT_REGION": self.options.get("region"),
        }
        own = {key: text for key, text in given.items() if text or key.startswith("RESTIC")}
        return {**{key: "" for key in _OTHERS}, **{key: text or "" for key, text in own.items()}, "TZ": "UTC"}

    # ---- looking

    def look(self) -> t.Dict[Key, Backup]:
        status, text = self._said(["snapshots", "--no-lock", "--no-cache"])
        self._there = status == 0
        if status and not _ABSENT.search(text):
            raise self._failure("list its backups", text)
        self.missing = None if self._there or self.options.get("create") else (
            f"there is no repository at {self.where}; mount what belongs there, correct repository.location, or have it made with repository.create=true"
        )  # fmt: skip
        found = _listed(text) if self._there else []
        strange = [one["id"][:8] for one in found if not one["backup"]]
        self.warnings = tuple(f"snapshot {key} at {self.where} has the tags of a backup, and they can't be understood" for key in strange)
        self.known = _joined([one["backup"] for one in found if one["backup"]])
        return self.known

    def give(self, backup: Backup) -> t.Iterator[t.Tuple[int, bytes]]:
        at = 0
        with contextlib.closing(self._dumped(backup)) as pieces:
            for piece in pieces:
                yield from _filled(at, piece)
                at += len(piece)
        if at != backup.size_bytes:
            raise Failed(f"{backup} at {self.where} has {at} bytes instead of {backup.size_bytes}; it is damaged: take another one")

    def _dumped(self, backup: Backup) -> t.Iterator[bytes]:
        words = self._words(["dump", t.cast(str, backup.id), f"/{_file_of(backup)}"])
        with tempfile.TemporaryFile() as said, self._started(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said) as process:
            stream = t.cast(t.IO[bytes], process.stdout)
            piece = stream.read(_PIECE)
            while piece:
                yield piece
                piece = stream.read(_PIECE)
            if process.wait(_STUCK):
                raise self._failure(f"give {backup} back", _text_of(said))

    # ---- writing

    def keep(self, backup: Backup, data: Readable) -> Backup:
        if not self._there:
            self._create()
        words = [
            "backup", "--stdin", "--stdin-filename", _file_of(backup), "--time", backup.created_at.replace("T", " ").rstrip("Z"),
            "--tag", ",".join(_tags(backup)), "--compression", self.options.get("compression") or "auto",
        ]  # fmt: skip
        text = self._locking(f"keep {backup}", lambda: self._fed(self._words(words), data))
        kept = next((one for one in _lines(text) if one.get("message_type") == "summary"), {})
        if kept.get("total_bytes_processed") != data.size_bytes:
            had = f"{kept.get('total_bytes_processed')} bytes of {data.size_bytes}"
            raise Failed(f"restic kept {had} of {backup} at {self.where}; delete it and take another one")
        self.known[backup.key] = dataclasses.replace(backup, id=kept["snapshot_id"], copies=(kept["snapshot_id"],))
        return self.known[backup.key]

    def _create(self) -> None:
        status, text = self._said(["init"])
        if status and "already exists" not in text:
            raise self._failure("make a repository", text)
        self._there = True

    def _fed(self, words: t.List[str], data: Readable) -> t.Tuple[int, str]:
        """Runs restic on a stream of data; whatever fails here ends it before it has kept anything."""
        here, there = socket.socketpair()
        with here, there, tempfile.TemporaryFile() as said:
            with self._started(words, stdin=there, stdout=said, stderr=said, pass_fds=(here.fileno(),)) as process:
                there.close()
                here.settimeout(_STUCK)
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has ended by itself, and says why
                    _feed(here, data)
                    here.shutdown(socket.SHUT_WR)
                status = process.wait(_STUCK)
            return status, _text_of(said)

    def forget(self, backups: t.Sequence[Backup]) -> None:
        copies = [copy for backup in backups for copy in backup.copies]
        self._locking(f"forget {', '.join(map(str, backups))}", lambda: self._said(["forget", *copies]))
        self.unclean = True
        self.known = {key: backup for key, backup in self.known.items() if backup not in backups}

    def clean(self) -> None:
        self._locking("free what no backup needs", lambda: self._said(["prune"]))
        self.unclean = False

    def _locking(self, what: str, act: t.Callable[[], t.Tuple[int, str]]) -> str:
        """Does something that restic locks the repository for. What killed runs have left of locks goes, others are waited for."""
        status, text = act()
        if status and "already locked" in text:
            self._said(["unlock"])  # of its own host's dead processes, and those that are older than half an hour
            status, text = act()
        if status and "already locked" in text:
            who = " ".join(text[text.index("already locked") :].splitlines()[0].split())
            raise Busy(f"restic can't {what}: the repository at {self.where} is {who}; let that end, or wait half an hour if its host is gone")
        if status:
            raise self._failure(what, text)
        return text

    # ---- restic itself

    def _words(self, words: t.Sequence[str]) -> t.List[str]:
        ca = ["--cacert", self.options["ca_file"]] if self.options.get("ca_file") else []
        cache = ["--cache-dir", self.options["cache"]] if self.options.get("cache") else ["--no-cache"]
        return [_RESTIC, "--json", "--quiet", *ca, *([] if "--no-cache" in words else cache), *words]

    def _said(self, words: t.Sequence[str]) -> t.Tuple[int, str]:
        try:
            return tuple(run(self._words(words), _HOURS, before=die_together, env=self._environment))
        except Unavailable as error:
            raise _uninstalled() from error

    @contextlib.contextmanager
    def _started(self, words: t.List[str], **streams: t.Any) -> t.Iterator[subprocess.Popen]:
        """restic while it runs; it ends with us, and when what is done meanwhile fails."""
        try:
            process = subprocess.Popen(words, env=environment(self._environment), preexec_fn=die_together, **streams)
        except FileNotFoundError as error:
            raise _uninstalled() from error
        with process:
            try:
                yield process
            except subprocess.TimeoutExpired as error:
                raise Failed(f"restic has not ended {_STUCK:g} s after it had all; see whether {self.where} answers") from error
            except socket.timeout as error:
                raise Failed(f"restic took nothing for {_STUCK:g} s; see whether {self.where} answers") from error
            finally:
                process.kill()

    def _failure(self, what: str, text: str) -> StorageError:
        if "wrong password" in text:
            return Refused(f"the password of the repository at {self.where} is another one; correct repository.password (nothing was changed)")
        if _ABSENT.search(text):
            return Unavailable(f"there is no repository at {self.where} any more; bring it back, and run again")
        said = " ".join(" ".join(one.get("message") or line for line in text.splitlines() for one in [*_lines(line), {}][:1]).split())
        return Failed(f"restic can't {what} at {self.where}: {said[-_WORDS:] or 'it says nothing'}; mend that and run again")


def _uninstalled() -> Unavailable:
    return Unavailable("restic is not installed on this host; install the package restic (0.14 or newer)")


def _text_of(said: t.IO[bytes]) -> str:
    said.seek(0)
    return said.read().decode("utf-8", "replace")


def _lines(text: str) -> t.List[t.Dict[str, t.Any]]:
    """What restic says as JSON, one object a line."""
    found = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return [one for one in found if isinstance(one, dict)]


def _feed(sink: socket.socket, data: Readable) -> None:
    at = 0
    for start, piece in data.pieces(_PIECE):
        _send_zeros(sink, start - at)
        sink.sendall(piece)
        at = start + len(piece)
    _send_zeros(sink, data.size_bytes - at)


def _send_zeros(sink: socket.socket, size: int) -> None:
    for start in range(0, size, _PIECE):
        sink.sendall(_ZEROS[: min(_PIECE, size - start)])


def _filled(at: int, piece: bytes) -> t.Iterator[t.Tuple[int, bytes]]:
    """The parts of a piece that are not zeros, those that touch as one."""
    if piece == _ZEROS[: len(piece)]:
        return
    begin = None
    for n in range(0, len(piece), _GRAIN):
        grain = piece[n : n + _GRAIN]
        empty = grain == _ZEROS[: len(grain)]
        if begin is None and not empty:
            begin = n
        if begin is not None and empty:
            yield at + begin, piece[begin:n]
            begin = None
    if begin is not None:
        yield at + begin, piece[begin:]


# ---- the record


def _file_of(backup: Backup) -> str:
    return f"volume-{backup.volume_id}.raw"


def _tags(backup: Backup) -> t.List[str]:
    """A record as tags, which hold no commas."""
    record = backup_record(backup)
    more = {key: value for key, value in record.items() if key not in (*_PLAIN, "id", "created_at") and value not in (None, {}, False)}
    plain = [f"{'backup' if key == 'name' else key}={record[key]}" for key in _PLAIN]
    return [*plain, "record=" + urllib.parse.quote(json.dumps(more, ensure_ascii=False), safe=' {}[]":/')]


def _listed(text: str) -> t.List[t.Dict[str, t.Any]]:
    """What restic lists of ours, as id and backup, None where its tags can't be understood."""
    try:
        found = json.loads(text) or []
    except ValueError as error:
        raise Failed(f"what restic lists can't be understood ({error}); install another version of it (0.14 or newer)") from error
    ours = [(one["id"], one["time"], dict(tag.partition("=")[::2] for tag in one.get("tags") or ())) for one in found]
    return [{"id": key, "backup": _backup(key, time, tags)} for key, time, tags in ours if "record" in tags and "volume_id" in tags]


def _backup(key: str, time: str, tags: t.Dict[str, str]) -> t.Optional[Backup]:
    try:
        more = json.loads(urllib.parse.unquote(tags["record"]))
        plain = {"name": tags["backup"], **{name: tags[name] for name in _PLAIN if name != "name"}}
        return backup_from({**more, **plain, "created_at": f"{time[:19]}Z", "id": key, "copies": (key,)})
    except (KeyError, TypeError, ValueError):
        return None


def _joined(found: t.Sequence[Backup]) -> t.Dict[Key, Backup]:
    """One backup for all snapshots that carry its name, the oldest of which counts."""
    joined: t.Dict[Key, Backup] = {}
    for one in sorted(found, key=lambda one: (one.created_at, one.id)):
        first = joined.get(one.key, one)
        joined[one.key] = dataclasses.replace(first, copies=tuple(dict.fromkeys((*first.copies, *one.copies))))
    return joined
