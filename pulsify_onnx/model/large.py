"""Reading a large model file without its weights: inline ones become references into the file itself.

A protobuf message is a row of (tag, value) fields; only the way ModelProto.graph / GraphProto.initializer /
TensorProto.raw_data is followed here, everything else is taken over as it is.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

import onnx

INLINE_LIMIT = 1 << 28
"""Files of more bytes are read this way."""

ALWAYS_INLINE = 1 << 16
"""Tensors of fewer bytes are read with the model."""

GRAPH, INITIALIZER, RAW_DATA = 7, 5, 9  # field numbers of onnx.proto
LENGTH_DELIMITED = 2


def read_model(path: Path) -> onnx.ModelProto:
    """The model at `path`; its large initializers refer to the file. Raises ValueError where it is not protobuf."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        kept, found = bytearray(), bytearray()
        for number, begin, start, end in _fields(data, 0, len(data)):
            if number != GRAPH:
                kept += data[begin:end]
                continue
            for inner, inner_begin, inner_start, inner_end in _fields(data, start, end):
                if inner == INITIALIZER and inner_end - inner_start > ALWAYS_INLINE:
                    found += _tagged(INITIALIZER, _reference(data, inner_start, inner_end, path.name))
                else:
                    found += data[inner_begin:inner_end]
    model: onnx.ModelProto = onnx.ModelProto.FromString(bytes(kept + _tagged(GRAPH, bytes(found))))
    return model


def _reference(data: mmap.mmap, start: int, end: int, file: str) -> bytes:
    """A tensor whose raw data is left where it is."""
    kept, place = bytearray(), None
    for number, begin, value, stop in _fields(data, start, end):
        if number == RAW_DATA and stop - value > ALWAYS_INLINE:
            place = (value, stop - value)
        else:
            kept += data[begin:stop]
    if place is None:
        return bytes(kept)
    outside = onnx.TensorProto(data_location=onnx.TensorProto.EXTERNAL)
    for key, text in (("location", file), ("offset", str(place[0])), ("length", str(place[1]))):
        outside.external_data.add(key=key, value=text)
    kept += outside.SerializeToString()
    return bytes(kept)


def _fields(data: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """(number, begin of the tag, begin and end of the value) of every field."""
    while at < end:
        begin = at
        tag, at = _varint(data, at, end)
        kind, start = tag & 7, at
        if kind == 0:
            _, at = _varint(data, at, end)
        elif kind == LENGTH_DELIMITED:
            size, start = _varint(data, at, end)
            at = start + size
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise ValueError("it is not protobuf")
        if at > end:
            raise ValueError("it is cut short")
        yield tag >> 3, begin, start, at


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 64:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ValueError("it is cut short")


def _tagged(number: int, value: bytes) -> bytes:
    head, size = bytearray([number << 3 | LENGTH_DELIMITED]), len(value)
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head) + value
