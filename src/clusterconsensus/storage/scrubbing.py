"""Reading again what nobody reads, to find damage while there is still a remedy (W8).

A closed segment never changes. It is whole if its START is there, every record fits to the chain,
and the chain ends exactly where the next segment's START goes on; what stands behind its last
batch is then padding. The header, which only a start needs, is checked too: a damaged one would
be noticed when it is too late.
"""

from __future__ import annotations

from collections.abc import Iterator

from clusterconsensus.errors import DamagedError, StorageError
from clusterconsensus.storage.files import Files
from clusterconsensus.storage.findings import open_segment, read_start
from clusterconsensus.storage.index import Window
from clusterconsensus.storage.records import HEADER_BYTES, Kind, Start, file_seed, link
from clusterconsensus.storage.segments import segment_path


class Scrubbing:
    """One reading of closed segments.

    Arguments:
        disk_id: Whose journal it is.
        max_bytes: About how much to read in one step.
    """

    def __init__(self, files: Files, directory: str, disk_id: str, max_bytes: int) -> None:
        self._files = files
        self._directory = directory
        self._disk_id = disk_id
        self._max_bytes = max_bytes

    def segment(self, number: int) -> Iterator[int]:
        """Check one segment, of which the next one is in use; yields the bytes of each step.

        Raises:
            DamagedError: naming file, offset and sequences; also if it is not there.
        """
        path = segment_path(self._directory, number)
        last_seq = 0
        try:
            open_segment(self._files, path, number, self._disk_id)
            seed = file_seed(self._disk_id, number)
            end = self._files.size(path)
            window = Window(self._files, path, seed, end, max(4096, self._max_bytes))
            following = read_start(
                self._files,
                segment_path(self._directory, number + 1),
                number + 1,
                self._disk_id,
            )
            start: Start | None = None
            batch = chain = records = 0
            offset = whole = reported = HEADER_BYTES
            while (record := window.record(offset)) is not None:
                if record.kind == Kind.START:
                    start = record.start()
                    batch, chain, last_seq = start.number, start.chain, start.last_seq
                if record.kind == Kind.TRAILER:
                    trailer = record.trailer()
                    if (trailer.number, trailer.chain, trailer.records) != (
                        batch + 1,
                        chain,
                        records,
                    ):
                        break
                    batch += 1
                    records, whole, last_seq = 0, record.end, record.seq
                else:
                    records += 1
                chain = link(chain, record.crc)
                offset = record.end
                if offset - reported >= self._max_bytes:
                    yield offset - reported
                    reported = offset
        except (OSError, StorageError) as error:
            raise DamagedError(
                f"{path}: cannot be read behind sequence {last_seq}: {error}"
            ) from error
        if start is None or whole != offset:
            raise self._damaged(path, whole, last_seq, "it was read again")
        if following is None or (following.number, following.chain) != (batch, chain):
            why = f"{segment_path(self._directory, number + 1)} does not continue from it"
            raise self._damaged(path, whole, last_seq, why)
        yield offset - reported

    def _damaged(self, path: str, offset: int, last_seq: int, why: str) -> DamagedError:
        return DamagedError(
            f"{path}: no valid batch at offset {offset}, where what follows sequence {last_seq} "
            f"had been durable: {why}"
        )
