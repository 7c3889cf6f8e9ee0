"""The Python side of counter.erl: counts in a word of its own, or prints the count.

Python has no atomic addition: `words[i] += 1` is a read and then a write, and what another process adds between the two
is lost. So this program never changes a word that others change. It owns one slot of the file, by a lock (fcntl) that the
system takes back when the process ends, however it ends. Reading the words of others is safe: they are aligned, and
memoryview.cast("Q") of CPython copies the eight bytes by one instruction, so nobody sees half a number. (The language
promises that nowhere. Slices of the mmap object copy as memcpy does, and the struct module byte by byte.)

Does not: make the file (a VM does), or add together with other threads that use the same slot.

    python3 examples/counter.py FILE add TIMES SLOT     SLOT from 1 to 63; 0 is the VMs'
    python3 examples/counter.py FILE                    prints the count
"""

import fcntl
import mmap
import sys

SLOTS = 64
SLOT_BYTES = 64
SLOT_WORDS = SLOT_BYTES // 8


def main(path, command=None, times="0", slot="1"):
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), SLOTS * SLOT_BYTES) as mapping:
        with memoryview(mapping) as memory, memory.cast("Q") as words:
            if command == "add":
                add(file, words, int(slot), int(times))
            else:
                print(sum(words[::SLOT_WORDS]))


def add(file, words, slot, times):
    if not 0 < slot < SLOTS:
        sys.exit("counter.py: a slot is 1 to %d" % (SLOTS - 1))
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, SLOT_BYTES, slot * SLOT_BYTES)
    except OSError:
        sys.exit("counter.py: another process counts in slot %d" % slot)
    for _ in range(times):
        words[slot * SLOT_WORDS] += 1


if __name__ == "__main__":
    main(*sys.argv[1:])
