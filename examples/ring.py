"""The Python side of ring.erl: takes messages from one ring and sends them back in upper case through the other.

The rules of order are in ring.erl. This side keeps them so:

  - memoryview.cast("Q")[i] of CPython reads or writes an aligned word by one instruction. (Slices of the mmap object, and
    the struct module, may not; so they are for the slots only.)
  - A slot is filled before the count says so, and is read after it. Python has no barriers, so a processor that is not
    x86-64 may show that in another order: the checksum tells, and what does not match has not arrived yet.

Does not: anything by itself. A VM starts it, and it ends when its standard input does: when the VM closes it, or dies.
"""

import mmap
import select
import struct
import sys
import zlib

SLOTS = 64
SLOT = 256
HEAD = struct.Struct("=II")  # checksum and length, in the order of the machine
PAGE = 4096


def checksum(number, message):
    return zlib.crc32(message, zlib.crc32(struct.pack("=Q", number)))


class Ring:
    """One direction: the index of its two words, and where its slots begin."""

    def __init__(self, memory, sent, taken, slots):
        self.memory = memory
        self.words = memory[:PAGE].cast("Q")
        self.sent = sent
        self.taken = taken
        self.slots = slots

    def send(self, message):
        """Whether there was room."""
        if len(message) > SLOT - HEAD.size:
            raise ValueError("a message is at most %d bytes" % (SLOT - HEAD.size))
        number = self.words[self.sent]
        if number - self.words[self.taken] == SLOTS:
            return False
        at = self.slots + number % SLOTS * SLOT
        self.memory[at + HEAD.size : at + HEAD.size + len(message)] = message
        HEAD.pack_into(self.memory, at, checksum(number, message), len(message))
        self.words[self.sent] = number + 1
        return True

    def take(self):
        """The next message, or None."""
        number = self.words[self.taken]
        if number == self.words[self.sent]:
            return None
        at = self.slots + number % SLOTS * SLOT
        slot = bytes(self.memory[at : at + SLOT])
        expected, length = HEAD.unpack_from(slot)
        message = slot[HEAD.size : HEAD.size + length]
        if checksum(number, message) != expected:
            return None
        self.words[self.taken] = number + 1
        return message


def until_there_is(function):
    """What the function gives, once that is neither None nor False. Ends the program if the VM is gone."""
    while True:
        result = function()
        if result is not None and result is not False:
            return result
        if select.select([sys.stdin], [], [], 0.001)[0]:
            sys.exit()


def main(path):
    with open(path, "r+b", buffering=0) as file:
        memory = memoryview(mmap.mmap(file.fileno(), 0))
    messages = Ring(memory, 0, 8, PAGE)
    answers = Ring(memory, 16, 24, PAGE + SLOTS * SLOT)
    while True:
        answer = until_there_is(messages.take).upper()
        until_there_is(lambda: answers.send(answer))


if __name__ == "__main__":
    main(sys.argv[1])
