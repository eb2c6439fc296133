"""Snapshots: a whole book in a file, written at once and read back with everything checked.

A snapshot stands for a journal up to one of its records: it is what replaying all of that leads to.
It is made by a process that does just that (`riskd journal snapshot`), so that the service is never
stopped for it, and so that every snapshot proves that the journal can be replayed.

The file
    In the journal's directory, `%020d.snapshot` by the sequence of that record. All numbers are
    little endian and unsigned. A head, sections, an end; nothing lies between them.

The head, 96 bytes
         0  8  magic, "RISKDSNP"
         8  4  format version, 1
        12  4  number of sections
        16  8  sequence of the record
        24  8  revision
        32  8  time of the record in ns
        40  4  checksum of the record, as in the journal
        44  4  zero
        48 32  version of the program, ASCII, zeros behind it
        80  8  size of the file
        88  4  zero
        92  4  CRC-32C of bytes 0 to 91

A section
    A head of 64 bytes, then its content, of which the head says how long it is.

         0 16  name, ASCII, zeros behind it
        16  4  size of an entry
        20  4  capacity: the room of the table
        24  4  entries in use
        28  4  first free place, 0xFFFFFFFF if there is none; of a ring, where its oldest entry is
        32  8  entries that follow: all places ever taken, free ones too; of answers, how many
        40  8  size of the content
        48  4  CRC-32C of the content
        52  8  zero
        60  4  CRC-32C of bytes 0 to 59

    `book` is one entry of what is in no table, `answers` as many sections as it takes, and all
    others are tables as they lie in memory, entries and places as in book.pxd and types.pxd.
    Indexes are not kept: they are built anew, under another secret seed. An answer is its head (the
    size of an entry) and its reply (of the size that the head says). Answers stand by their
    gateways' places, of each those to orders before those to executions, oldest first.

The end, 16 bytes
         0  8  magic, "RISKDEND"
         8  4  CRC-32C of the heads of the file and of all sections, back to back: as those hold the
               checksums of the contents, of everything
        12  4  zero

Versions
    Structs only ever grow at their end, and zero is what an older program meant where it had no
    field (or is no number of ours, and means the one that `_complete` writes). So entries smaller
    than ours get zeros behind them, and a table that is not there is empty. Entries larger than
    ours, and sections that are not known, are of a newer program, and refused. A new format version
    is for all else.

How it is written
    Under another name, synced, read back from the disk and compared, then renamed, and the
    directory synced. So a file with the name is whole, unless the disk has damaged it since; then
    `SnapshotInvalidError` says where, and nothing was taken from it.
"""

import os
import re
import struct
from typing import NamedTuple

import riskd

from cpython.buffer cimport PyBUF_READ, PyBUF_WRITE
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from riskd.core.book cimport (
    ANSWER_EXECUTION,
    ANSWER_ORDER,
    REMEMBERED_SIZE_MAX,
    TABLES,
    AnswerHead,
    Book,
    Capacities,
    Ring,
    Scalars,
    Table,
    answer_add,
    answer_copy,
    answer_size,
    book_close,
    book_index,
    book_open,
    book_scalars,
    book_set_scalars,
    book_tables,
    capacities_fixed,
    ring_find,
)
from riskd.core.journal cimport journal_crc32c
from riskd.core.money cimport debug_assert
from riskd.core.types cimport FAMILY_TIERED, MAINTENANCE_BASIS_MARK, NOWHERE

_MAGIC = b"RISKDSNP"
_END_MAGIC = b"RISKDEND"
_FORMAT_VERSION = 1
_HEAD = struct.Struct("<8sIIQQQII32sQI")
_SECTION = struct.Struct("<16sIIIIQQIQ")
_END = struct.Struct("<8sII")
_CHECKSUM = struct.Struct("<I")
_NAME = re.compile(r"([0-9]{20})\.snapshot")
# Of one section of answers, so that little is in memory at once.
_ANSWERS_SIZE_MAX = 1 << 20


class SnapshotInvalidError(Exception):
    """The file is not a snapshot that this program wrote or can read."""

    def __init__(self, file, reason):
        super().__init__(file, reason)
        self.file = file
        self.reason = reason

    def __str__(self):
        return f"{self.file}: {self.reason}"


class SnapshotHead(NamedTuple):
    sequence: int
    revision: int
    time_ns: int
    checksum: int
    program_version: str
    sections: int
    size_bytes: int


class _Section(NamedTuple):
    name: str
    entry_size: int
    capacity: int
    count: int
    first: int
    places: int
    size: int
    checksum: int
    # Where its content begins.
    offset: int


def snapshot_paths(directory):
    found = []
    for name in os.listdir(directory):
        match = _NAME.fullmatch(name)
        if match:
            found.append((int(match[1]), os.path.join(os.fspath(directory), name)))
    return sorted(found, reverse=True)


def snapshot_head(path):
    with open(path, "rb") as file:
        return _read_layout(file, os.fspath(path))[0]


# --- writing ---------------------------------------------------------------------------------

cdef object snapshot_write(
    Book *book, directory, uint64_t sequence, uint64_t time_ns, uint32_t checksum
):
    path = os.path.join(os.fspath(directory), f"{sequence:020}.snapshot")
    temporary = path + ".tmp"
    try:
        _write_file(book, temporary, sequence, time_ns, checksum)
        _compare(book, temporary)
        os.rename(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
    _sync_directory(directory)
    return path


cdef int _write_file(
    Book *book, path, uint64_t sequence, uint64_t time_ns, uint32_t checksum
) except -1:
    with open(path, "wb") as file:
        _write(book, file, sequence, time_ns, checksum)
        file.flush()
        os.fsync(file.fileno())
        # So that it is read back from the disk.
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return 0


cdef int _sync_directory(directory) except -1:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    return 0


cdef int _write(
    Book *book, file, uint64_t sequence, uint64_t time_ns, uint32_t checksum
) except -1:
    cdef Table tables[TABLES]
    cdef Table *table
    cdef Scalars scalars
    cdef uint32_t id
    heads = []
    file.write(bytes(_HEAD.size + _CHECKSUM.size))
    book_scalars(book, &scalars)
    heads.append(_write_section(
        file, b"book", sizeof(Scalars), 1, 1, <uint32_t>NOWHERE, 1,
        _bytes_at(&scalars, sizeof(Scalars)),
    ))
    book_tables(book, tables)
    for id in range(<uint32_t>TABLES):
        table = &tables[id]
        places = table.count[0] if table.top == NULL else table.top[0]
        heads.append(_write_section(
            file,
            table.name,
            table.entry_size,
            table.capacity[0],
            table.count[0],
            _first_of(table),
            places,
            _bytes_at(table.entries[0], places * table.entry_size),
        ))
    _write_answers(book, file, heads)
    size = file.tell() + _END.size
    head = _sealed(_HEAD.pack(
        _MAGIC,
        _FORMAT_VERSION,
        len(heads),
        sequence,
        book.revision,
        time_ns,
        checksum,
        0,
        riskd.__version__.encode("ascii"),
        size,
        0,
    ))
    file.write(_END.pack(_END_MAGIC, _crc(head + b"".join(heads)), 0))
    file.seek(0)
    file.write(head)
    return 0


cdef uint32_t _first_of(const Table *table) noexcept nogil:
    """Return the first free place, or where a ring begins."""
    if table.start != NULL:
        return table.start[0]
    return NOWHERE if table.free == NULL else table.free[0]


cdef int _write_answers(Book *book, file, list heads) except -1:
    """Write the answers in as many sections as they take."""
    cdef uint32_t place, kind
    cdef const Ring *ring
    cdef uint64_t done
    cdef AnswerHead head
    cdef uint8_t reply[REMEMBERED_SIZE_MAX]
    entries = bytearray()
    count = 0
    for place in range(book.gateway_count):
        for kind in (ANSWER_ORDER, ANSWER_EXECUTION):
            ring = ring_find(book, kind, book.gateways[place].gateway_id)
            done = 0
            while done < ring.used:
                answer_copy(ring, ring.start + done, <uint8_t *>&head, sizeof(AnswerHead))
                answer_copy(
                    ring, ring.start + done + sizeof(AnswerHead), reply, head.reply_size
                )
                if len(entries) + <Py_ssize_t>answer_size(head.reply_size) > _ANSWERS_SIZE_MAX:
                    heads.append(_write_answer_section(file, entries, count))
                    entries.clear()
                    count = 0
                entries += (<char *>&head)[:sizeof(AnswerHead)]
                entries += (<char *>reply)[:head.reply_size]
                count += 1
                done += answer_size(head.reply_size)
    if count:
        heads.append(_write_answer_section(file, entries, count))
    return 0


cdef bytes _write_answer_section(file, entries, count):
    return _write_section(
        file, b"answers", sizeof(AnswerHead), 0, 0, <uint32_t>NOWHERE, count, bytes(entries)
    )


cdef bytes _write_section(file, name, entry_size, capacity, count, first, places, content):
    """Write a section; return its head."""
    head = _sealed(_SECTION.pack(
        name, entry_size, capacity, count, first, places, len(content), _crc(content), 0
    ))
    file.write(head)
    file.write(content)
    return head


cdef object _bytes_at(const void *start, Py_ssize_t size):
    """Return a view; only of what stays there."""
    return PyMemoryView_FromMemory(<char *>start, size, PyBUF_READ)


cdef uint32_t _crc(content) except? 0:
    cdef const uint8_t[::1] view
    if len(content) == 0:
        return journal_crc32c(NULL, 0)
    view = content
    return journal_crc32c(&view[0], <size_t>view.shape[0])


cdef bytes _sealed(bytes head):
    return head + _CHECKSUM.pack(_crc(head))


cdef int _compare(Book *book, path) except -1:
    """Read a file back, and raise unless it gives the very book that was written."""
    cdef Book copy
    memset(&copy, 0, sizeof(Book))
    snapshot_read(&copy, path, book.account_index.seed)
    try:
        if not _same(book, &copy):
            raise SnapshotInvalidError(path, "what was read back is not what was written")
    finally:
        book_close(&copy)
    return 0


cdef bint _same(Book *book, Book *copy) noexcept nogil:
    cdef Table ours[TABLES]
    cdef Table theirs[TABLES]
    cdef uint32_t id, places
    cdef size_t ring
    cdef Scalars our_scalars, their_scalars
    book_tables(book, ours)
    book_tables(copy, theirs)
    book_scalars(book, &our_scalars)
    book_scalars(copy, &their_scalars)
    if book.revision != copy.revision or memcmp(
        &our_scalars, &their_scalars, sizeof(Scalars)
    ) != 0:
        return False
    for id in range(<uint32_t>TABLES):
        if ours[id].count[0] != theirs[id].count[0]:
            return False
        if ours[id].capacity[0] != theirs[id].capacity[0]:
            return False
        if _first_of(&ours[id]) != _first_of(&theirs[id]):
            return False
        places = ours[id].count[0]
        if ours[id].top != NULL:
            places = ours[id].top[0]
            if places != theirs[id].top[0]:
                return False
        if memcmp(
            ours[id].entries[0], theirs[id].entries[0], places * <size_t>ours[id].entry_size
        ) != 0:
            return False
    for ring in range(2 * <size_t>book.gateway_count):
        if not _same_answers(&book.rings[ring], &copy.rings[ring]):
            return False
    return True


cdef bint _same_answers(const Ring *ring, const Ring *copy) noexcept nogil:
    # An AnswerHead and its reply.
    cdef uint8_t ours[REMEMBERED_SIZE_MAX + 256]
    cdef uint8_t theirs[REMEMBERED_SIZE_MAX + 256]
    cdef uint64_t done = 0
    cdef uint64_t size
    cdef AnswerHead head
    if ring.capacity != copy.capacity or ring.used != copy.used:
        return False
    while done < ring.used:
        answer_copy(ring, ring.start + done, <uint8_t *>&head, sizeof(AnswerHead))
        size = sizeof(AnswerHead) + head.reply_size
        debug_assert(size <= sizeof(ours))
        answer_copy(ring, ring.start + done, ours, size)
        answer_copy(copy, copy.start + done, theirs, size)
        if memcmp(ours, theirs, size) != 0:
            return False
        done += answer_size(head.reply_size)
    return True


# --- reading ---------------------------------------------------------------------------------

cdef object snapshot_read(Book *book, path, uint64_t seed):
    memset(book, 0, sizeof(Book))
    try:
        return _read_file(book, path, seed)
    except BaseException:
        book_close(book)
        raise


cdef object _read_file(Book *book, path, uint64_t seed):
    cdef Table tables[TABLES]
    cdef Scalars scalars
    cdef uint32_t id
    cdef const char *fault
    with open(path, "rb") as file:
        head, sections = _read_layout(file, path)
        book_tables(book, tables)
        ids = {}
        for id in range(<uint32_t>TABLES):
            ids[tables[id].name.decode()] = id
        _check_sections(path, sections, ids, tables)
        _read_scalars(file, path, sections, &scalars)
        _open_for(book, path, sections, ids, scalars.answer_bytes, seed)
        book.revision = head.revision
        book_set_scalars(book, &scalars)
        for section in sections:
            if section.name in ids:
                id = ids[section.name]
                _read_table(file, path, section, &tables[id])
        _complete(book)
        fault = book_index(book)
        if fault != NULL:
            raise SnapshotInvalidError(path, fault.decode())
        for section in sections:
            if section.name == "answers":
                _read_answers(file, path, section, book)
    return head


cdef void _complete(Book *book) noexcept nogil:
    """Write what an older program meant where zero is no number of ours."""
    cdef uint32_t place
    for place in range(book.schedule_count):
        if book.schedules[place].ladder.family == 0:
            book.schedules[place].ladder.family = FAMILY_TIERED
            book.schedules[place].ladder.basis = MAINTENANCE_BASIS_MARK
    for place in range(book.instrument_count):
        if book.instruments[place].multiplier_mantissa == 0:
            book.instruments[place].multiplier_mantissa = 1


cdef int _open_for(
    Book *book, path, list sections, dict ids, uint64_t answer_bytes, uint64_t seed
) except -1:
    """Open a book with the capacities of the file."""
    cdef Capacities capacities
    cdef uint32_t id
    for id in range(<uint32_t>TABLES):
        capacities.entries[id] = 1
    capacities_fixed(&capacities)
    capacities.answer_bytes = answer_bytes
    for section in sections:
        if section.name in ids:
            capacities.entries[<uint32_t>ids[section.name]] = section.capacity
    if not book_open(book, &capacities, seed):
        raise MemoryError(f"{path}: the tables do not fit in memory")
    return 0


cdef tuple _read_layout(file, path):
    """Return the file's head and its sections' heads, all checked, none of the contents."""
    raw = _take(file, path, _HEAD.size + _CHECKSUM.size)
    heads = [raw]
    magic, version, count, *facts, _, program, size, _ = _HEAD.unpack_from(raw)
    if magic != _MAGIC:
        raise SnapshotInvalidError(path, "it does not begin as a snapshot")
    if _crc(raw[:_HEAD.size]) != _CHECKSUM.unpack_from(raw, _HEAD.size)[0]:
        raise SnapshotInvalidError(path, "the head's checksum is wrong")
    if version != _FORMAT_VERSION:
        raise SnapshotInvalidError(
            path, f"its format is {version}, of {_text(program)}; this program reads 1"
        )
    if size != os.fstat(file.fileno()).st_size:
        raise SnapshotInvalidError(path, f"it has not the {size} bytes that were written")
    sections = []
    for _ in range(count):
        raw = _take(file, path, _SECTION.size + _CHECKSUM.size)
        heads.append(raw)
        name, *numbers, _ = _SECTION.unpack_from(raw)
        if _crc(raw[:_SECTION.size]) != _CHECKSUM.unpack_from(raw, _SECTION.size)[0]:
            raise SnapshotInvalidError(path, "the checksum of a section's head is wrong")
        section = _Section(_text(name), *numbers, file.tell())
        sections.append(section)
        if section.size > size - section.offset:
            raise SnapshotInvalidError(path, f"section {section.name} is longer than the file")
        file.seek(section.size, os.SEEK_CUR)
    raw = _take(file, path, _END.size)
    if raw != _END.pack(_END_MAGIC, _crc(b"".join(heads)), 0) or file.tell() != size:
        raise SnapshotInvalidError(path, "it does not end as it should")
    return SnapshotHead(*facts, _text(program), count, size), sections


cdef str _text(bytes name):
    return name.rstrip(b"\0").decode("ascii", "replace")


cdef int _check_sections(path, list sections, dict ids, const Table *tables) except -1:
    """Refuse what is not known, or does not hold together, before anything is opened for it."""
    seen = set()
    for section in sections:
        name = section.name
        if name in seen:
            raise SnapshotInvalidError(path, f"section {name} is there twice")
        if name == "answers":
            entry_size = sizeof(AnswerHead)
        elif name == "book":
            entry_size = sizeof(Scalars)
        elif name in ids:
            entry_size = tables[<uint32_t>ids[name]].entry_size
        else:
            raise SnapshotInvalidError(path, f"section {name} is not known: of a newer program?")
        if section.entry_size > entry_size:
            raise SnapshotInvalidError(
                path,
                f"an entry of section {name} has {section.entry_size} bytes, not at most"
                f" {entry_size}: of a newer program?",
            )
        if name == "answers":
            continue
        seen.add(name)
        if section.entry_size == 0 or section.size != section.places * section.entry_size:
            raise SnapshotInvalidError(path, f"section {name} has not the size of its entries")
        if not section.count <= section.places <= section.capacity or section.capacity == 0:
            raise SnapshotInvalidError(path, f"section {name} holds more than it has room for")
        if name in ids and tables[<uint32_t>ids[name]].top == NULL and (
            section.count != section.places
        ):
            raise SnapshotInvalidError(path, f"section {name} has free places")
    if "book" not in seen:
        raise SnapshotInvalidError(path, "section book is missing")
    return 0


cdef int _read_scalars(file, path, list sections, Scalars *scalars) except -1:
    memset(scalars, 0, sizeof(Scalars))
    for section in sections:
        if section.name == "book":
            if section.places != 1:
                raise SnapshotInvalidError(path, "section book is not one entry")
            _read_entries(file, path, section, <uint8_t *>scalars, sizeof(Scalars))
    if not 4096 <= scalars.answer_bytes <= 1 << 32 or scalars.answer_bytes % 16:
        raise SnapshotInvalidError(
            path, f"answers have {scalars.answer_bytes} bytes of room, which cannot be"
        )
    return 0


cdef int _read_table(file, path, section, Table *table) except -1:
    _read_entries(file, path, section, <uint8_t *>table.entries[0], table.entry_size)
    table.count[0] = section.count
    if table.top != NULL:
        table.top[0] = section.places
        table.free[0] = section.first
    if table.start != NULL:
        table.start[0] = section.first
    return 0


cdef int _read_entries(file, path, section, uint8_t *start, size_t entry_size) except -1:
    """Read a section's entries to where they belong, with zeros behind each that is smaller.

    There is room for the entries, and it is zero.
    """
    cdef Py_ssize_t size = section.size
    cdef Py_ssize_t place, old_size
    cdef bytes content
    if size == 0:
        return 0
    file.seek(section.offset)
    old_size = section.entry_size
    if old_size == <Py_ssize_t>entry_size:
        if file.readinto(PyMemoryView_FromMemory(<char *>start, size, PyBUF_WRITE)) != size:
            raise SnapshotInvalidError(path, f"section {section.name} is cut")
        if journal_crc32c(start, <size_t>size) != section.checksum:
            raise SnapshotInvalidError(path, f"the checksum of section {section.name} is wrong")
        return 0
    # Of an older program: rare, and so in one piece.
    content = _checked(file, path, section)
    for place in range(section.places):
        memcpy(
            start + place * <Py_ssize_t>entry_size,
            <const char *>content + place * old_size,
            <size_t>old_size,
        )
    return 0


cdef int _read_answers(file, path, section, Book *book) except -1:
    cdef bytes content = _checked(file, path, section)
    cdef const uint8_t *next = <const uint8_t *><const char *>content
    cdef uint64_t left = <uint64_t>len(content)
    cdef uint64_t head_size = section.entry_size
    cdef uint64_t answers = section.places
    cdef AnswerHead head
    cdef Ring *ring
    while answers > 0 and left >= head_size:
        memset(&head, 0, sizeof(AnswerHead))
        memcpy(&head, next, head_size)
        left -= head_size
        ring = <Ring *>ring_find(book, head.kind, head.gateway_id)
        if ring == NULL or head.reply_size > left or head.reply_size > REMEMBERED_SIZE_MAX:
            break
        if answer_size(head.reply_size) > ring.capacity:
            break
        answer_add(ring, &head, next + head_size)
        left -= head.reply_size
        next += head_size + head.reply_size
        answers -= 1
    if answers > 0 or left > 0:
        raise SnapshotInvalidError(path, "an answer is not what it should be")
    return 0


cdef bytes _checked(file, path, section):
    """Return a section's content."""
    file.seek(section.offset)
    content = _take(file, path, section.size)
    if _crc(content) != section.checksum:
        raise SnapshotInvalidError(path, f"the checksum of section {section.name} is wrong")
    return content


cdef bytes _take(file, path, size):
    content = file.read(size)
    if len(content) != size:
        raise SnapshotInvalidError(path, "it is cut")
    return content
