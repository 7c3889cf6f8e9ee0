# Read by gdb, which is attached to a VM whose first scheduler makes one call over and over: steps that thread through some of
# the calls, and prints
#
#     instructions N distance D
#
# N instructions lie between two calls. D lie between the first access of a call to the mapped file and the first access or
# prefetch of the next call: a core can only overlap the cache misses of both if it gets that far ahead. D is 0 if the calls
# access no new line of the file each, and on processors whose operands are not written as x86-64 ones.
#
# MAPPED is the path of the file.
import bisect
import os
import re
import statistics

import gdb

CALLS = 4
MOST_STEPS = 200_000
# Longer than any call. The scheduler may be idle, as the call runs on a dirty one.
IDLE_STEPS = 30_000
OPERAND = re.compile(r"(-?0x[0-9a-f]+)?\((%\w+)?(?:,(%\w+),(\d))?\)")


def select_scheduler():
    gdb.execute("set pagination off")
    for thread in gdb.selected_inferior().threads():
        if re.fullmatch(r"erts_sched_1|1_scheduler", thread.name or ""):
            thread.switch()
            gdb.execute("set scheduler-locking on")
            return
    raise gdb.GdbError("no first scheduler")


def maps():
    """Those of the VM: (start, end, permissions, path)."""
    with open("/proc/%d/maps" % gdb.selected_inferior().pid) as lines:
        for fields in (line.split() for line in lines):
            start, end = fields[0].split("-")
            yield int(start, 16), int(end, 16), fields[1], " ".join(fields[5:])


def mapped_ranges():
    return sorted((start, end) for start, end, _, path in maps() if os.environ["MAPPED"] in path)


def compiled_ranges():
    """Where the machine code is that the VM made of Erlang."""
    return sorted((start, end) for start, end, rights, path in maps()
                  if "x" in rights and (not path or path.startswith("/memfd:")))


def is_mapped(address, ranges):
    at = bisect.bisect(ranges, (address, 2**64))
    return at > 0 and address < ranges[at - 1][1]


def operands(frame, text):
    """The addresses of the operands of an instruction that lie in memory."""
    if text.startswith(("nop", "lea")):
        return
    for offset, base, index, scale in OPERAND.findall(text):
        value = lambda name: int(frame.read_register(name[1:])) if name and name != "%rip" else 0
        yield (int(offset or "0", 16) + value(base) + value(index) * int(scale or 1)) % 2**64


def step(compiled, mapped):
    """At which steps each place in compiled code was passed; and the touches of the file: (step, line, whether a prefetch)."""
    passed, touches, texts = {}, [], {}
    for number in range(MOST_STEPS):
        frame = gdb.newest_frame()
        place = frame.pc()
        if place not in texts:
            texts[place] = frame.architecture().disassemble(place)[0]["asm"]
        text = texts[place]
        touches += [(number, address >> 6, text.startswith("prefetch"))
                    for address in operands(frame, text) if is_mapped(address, mapped)]
        if is_mapped(place, compiled):
            at = passed.setdefault(place, [])
            at.append(number)
            if len(at) > CALLS:
                return passed, touches
        if number > IDLE_STEPS and not passed:
            break
        gdb.execute("stepi", to_string=True)
    raise gdb.GdbError("no calls")


def instructions(passed):
    """The longest way back to the same place: that of the places which a call passes once."""
    return max(statistics.median_low([b - a for a, b in zip(at, at[1:])]) for at in passed.values() if len(at) >= CALLS - 1)


def distance(touches):
    """From the first access to a line of the file to the first touch of the next line."""
    distances, line, accessed = [], None, None
    for number, touched, is_prefetch in touches:
        if touched != line:
            if accessed is not None:
                distances.append(number - accessed)
            line, accessed = touched, None
        if not is_prefetch and accessed is None:
            accessed = number
    return statistics.median_low(distances) if len(distances) > 1 else 0


select_scheduler()
passed, touches = step(compiled_ranges(), mapped_ranges())
# Not to gdb's own output, which tells of every step.
os.write(1, b"instructions %d distance %d\n" % (instructions(passed), distance(touches)))
