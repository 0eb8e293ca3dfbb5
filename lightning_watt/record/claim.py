"""Which names a run's files get in their directory, so that no run replaces another one's record or mixes its rows with it.

The first run there has `watt.json`, `watt.jsonl` and `watt_batches.csv`. Lightning names a second checkpoint
`last-v1.ckpt`, and so the next run has `watt-v1.json`, `watt-v1.jsonl` and `watt_batches-v1.csv`. A run takes a version by
making its journal, which only one process can do. It takes the files of an earlier run over only if it goes on with that
run, and its record will hold every joule of the record that it replaces, and no other process is writing that one.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from io import FileIO
from pathlib import Path
from time import sleep

from lightning_watt.record.files import (
    BATCHES_NAME,
    JOURNAL_NAME,
    RECORD_NAME,
    file_of,
    is_locked,
    lock,
    names_in,
    open_to_write,
    unlock,
    versions_of,
)
from lightning_watt.record.read import Heading, read_heading
from lightning_watt.record.remote import RemoteCopy

MAX_LOOKED_INTO = 50
"""Journals of earlier runs that are looked at for a process that writes them now; the newest ones."""
LOCK_TRIES = 5
TRY_AGAIN_S = 0.01
"""Whoever looks whether a file is being written holds its lock for a moment."""


class RunFiles:
    """The files of one run: their directory, and their names there, which are chosen when the journal is first opened.

    Args:
        directory: the run's log directory.
        rank: the process's global rank; each rank but zero has files of its own.
        at_least: the version that rank zero found for all ranks of the run. None for a run of one process: the lowest one
            that no run has when the first line is written.
        goes_on: whether the record of this run will hold all that a record with this heading holds.
        copy: copies the files to a remote directory; then `directory` is where they are before.

    Attributes:
        version: the one that was chosen; None until then.
        is_new: whether the files with this version were made here.
    """

    def __init__(
        self,
        directory: Path,
        rank: int = 0,
        at_least: int | None = None,
        goes_on: Callable[[Heading], bool] = lambda _: False,
        copy: RemoteCopy | None = None,
    ) -> None:
        self.directory = directory
        self.rank = rank
        self.version: int | None = None
        self.is_new = False
        self.copy = copy
        self._at_least = at_least
        self._goes_on = goes_on
        self._is_resumed = False

    def path(self, name: str) -> Path:
        """Where the file of this name is, or will be if nobody takes that name before."""
        version = self.version if self.version is not None else self._at_least or 0
        return self.directory / file_of(name, self.rank, version)

    @property
    def where(self) -> str:
        """Where the record is, for the user."""
        return str(self.path(RECORD_NAME)) if self.copy is None else self.copy.path(RECORD_NAME)

    def room(self) -> Path:
        """A file that keeps some bytes of the disk for the next record."""
        record = self.path(RECORD_NAME)
        return record.with_name(f".{record.name}.room")

    def resumed(self) -> None:
        """The run goes on with an earlier one, whose files it may take over. May come from another thread than the rest."""
        self._is_resumed = True

    def open_journal(self, report: Callable[[str], None]) -> FileIO:
        """Open the journal to append to it. The first call chooses the version.

        Args:
            report: takes a sentence for the user, if another run writes to this directory now.

        Raises:
            OSError: it cannot be made.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        return self._open_earlier() or self._open_new(report)

    def go_on(self, journal: FileIO) -> FileIO:
        """The journal to write to from now on, once it is known which earlier run this one goes on with.

        Args:
            journal: the one that is open. If it and its record were made here, and the earlier run's can be taken over, then
                these are removed.
        """
        version, made = self.version, [self.path(RECORD_NAME), self.path(JOURNAL_NAME), self.room()]
        if not self._is_resumed or not self.is_new:
            return journal
        self.version = None
        earlier = self._open_earlier(without=version)
        if earlier is None:
            self.version = version
            return journal
        close_journal(journal)
        for file in made:
            with suppress(OSError):
                file.unlink(missing_ok=True)
        return earlier

    def _open_earlier(self, without: int | None = None) -> FileIO | None:
        """The journal of the run that this one goes on with, or its own from before; None if there is none."""
        was_resumed, self._is_resumed = self._is_resumed, False
        if self.version is not None:
            versions = {self.version}
        else:
            versions = versions_of(names_in(self.directory)) if was_resumed else set()
        for version in sorted(versions - {without}):
            record = self.directory / file_of(RECORD_NAME, self.rank, version)
            if not self._is_ours(record, version):
                continue
            with suppress(OSError):
                journal = open_to_write(self.directory / file_of(JOURNAL_NAME, self.rank, version), "a+")
                # Asked again, because another process may have taken it over before it was locked.
                if _lock(journal) and self._is_ours(record, version):
                    self.version, self.is_new = version, False
                    return journal
                journal.close()
        return None

    def _is_ours(self, record: Path, version: int) -> bool:
        heading = read_heading(record)
        if not heading.session:
            return version == self.version and not record.exists()  # it was taken, and no record was written yet
        return self._goes_on(heading)

    def _open_new(self, report: Callable[[str], None]) -> FileIO:
        names = names_in(self.directory)
        versions = versions_of(names)
        version, journal = self._at_least or 0, None
        while journal is None:
            own = {file_of(name, self.rank, version) for name in (RECORD_NAME, JOURNAL_NAME, BATCHES_NAME)}
            # The other ranks of this run may have begun to write already.
            if not own & names and (self._at_least is not None or version not in versions):
                with suppress(FileExistsError):  # another process was quicker
                    journal = open_to_write(self.directory / file_of(JOURNAL_NAME, self.rank, version), "x")
            version += 1
        _lock(journal)
        self.version, self.is_new = version - 1, True
        if self.rank == 0:
            self._tell_of_others(report)
        return journal

    def _tell_of_others(self, report: Callable[[str], None]) -> None:
        others = sorted(versions_of(names_in(self.directory)) - {self.version})
        journals = [file_of(JOURNAL_NAME, 0, version) for version in others[-MAX_LOOKED_INTO:]]
        busy = [journal for journal in journals if is_locked(self.directory / journal)]
        if busy:
            report(
                f"Another run is writing to {self.directory} now ({', '.join(busy)}), so the record of this one is "
                f"{self.path(RECORD_NAME).name}. Give each Trainer a directory of its own, with a logger or with "
                "default_root_dir, to keep their files apart."
            )


def close_journal(journal: FileIO) -> None:
    """Close a journal; another run may take it over from now on."""
    unlock(journal)
    journal.close()


def _lock(journal: FileIO) -> bool:
    for _ in range(LOCK_TRIES):
        if lock(journal):
            return True
        sleep(TRY_AGAIN_S)
    return False
