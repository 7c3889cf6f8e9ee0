"""Files of two formats, made and read without iommap and as their specifications say, to test the examples against.

    format_oracle.py make-cdb FILE KEY=VALUE ...    in the order of the arguments
    format_oracle.py read-cdb FILE KEY ...          prints KEY=VALUE, or KEY is not there
    format_oracle.py make-safetensors FILE          prints what examples/safetensors.exs should
"""

import json
import os
import struct
import sys
import zlib


def cdb_hash(key):
    value = 5381
    for byte in key:
        value = ((value << 5) + value & 0xFFFFFFFF) ^ byte
    return value


def make_cdb(path, *pairs):
    tables = [[] for _ in range(256)]
    with open(path, "wb") as file:
        file.seek(2048)
        for pair in map(os.fsencode, pairs):
            key, value = pair.split(b"=", 1)
            tables[cdb_hash(key) % 256].append((cdb_hash(key), file.tell()))
            file.write(struct.pack("<II", len(key), len(value)) + key + value)
        heads = b""
        for table in tables:
            slots = [(0, 0)] * (2 * len(table))
            for entry in table:
                at = (entry[0] >> 8) % len(slots)
                while slots[at][1]:
                    at = (at + 1) % len(slots)
                slots[at] = entry
            heads += struct.pack("<II", file.tell(), len(slots))
            file.write(b"".join(struct.pack("<II", *slot) for slot in slots))
        file.seek(0)
        file.write(heads)


def find_in_cdb(data, key):
    value = cdb_hash(key)
    table, slots = struct.unpack_from("<II", data, 8 * (value % 256))
    for step in range(slots):
        found, record = struct.unpack_from("<II", data, table + 8 * (((value >> 8) + step) % slots))
        if record == 0:
            return None
        key_size, size = struct.unpack_from("<II", data, record)
        start = record + 8 + key_size
        if found == value and data[record + 8 : start] == key:
            return data[start : start + size]
    return None


def read_cdb(path, *keys):
    with open(path, "rb") as file:
        data = file.read()
    for key in map(os.fsencode, keys):
        value = find_in_cdb(data, key)
        sys.stdout.buffer.write(key + (b" is not there" if value is None else b"=" + value) + b"\n")


def make_safetensors(path):
    tensors = [("layer.0/weight", "F32", [33, 1000]), ("none", "U8", [0, 4]), ('a "b" \\ \u00e9', "BF16", [4097]), ("scalar", "I64", [])]
    sizes = {"F32": 4, "U8": 1, "BF16": 2, "I64": 8}
    header, data = {"__metadata__": {"format": "pt", "note": '{"dtype": [1, 2]}\n'}}, b""
    for seed, (name, dtype, shape) in enumerate(tensors):
        length = sizes[dtype]
        for dimension in shape:
            length *= dimension
        tensor = bytes((seed + 7 * n + (n >> 8)) % 256 for n in range(length))
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + length]}
        data += tensor
        line = "%s %s %s %d %d\n" % (name, dtype, shape, length, zlib.crc32(tensor))
        sys.stdout.buffer.write(line.encode())
    text = json.dumps(header, indent=1).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


if __name__ == "__main__":
    commands = {"make-cdb": make_cdb, "read-cdb": read_cdb, "make-safetensors": make_safetensors}
    commands[sys.argv[1]](*sys.argv[2:])
