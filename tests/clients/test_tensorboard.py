"""The event files of a run, read as TensorBoard reads them: TFRecords with checksums around protobufs."""
import math
import struct

import pytest
from train_support import metrics, train, write_recipe


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(crc):
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def records(data):
    at = 0
    while at < len(data):
        length, check = struct.unpack_from("<QI", data, at)
        assert check == masked(crc32c(data[at:at + 8]))
        body = data[at + 12:at + 12 + length]
        assert struct.unpack_from("<I", data, at + 12 + length)[0] == masked(crc32c(body))
        yield body
        at += 16 + length


def varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if data[at - 1] < 0x80:
            return value, at


def fields(data):
    """(number, value): an integer, 8 or 4 raw bytes, or the bytes of a string or message."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = varint(data, at)
        else:
            length = 8 if kind == 1 else 4 if kind == 5 else None
            if length is None:
                assert kind == 2
                length, at = varint(data, at)
            value, at = data[at:at + length], at + length
        yield key >> 3, value


def scalars(file):
    """{tag: {step: value}} of Event{step=2, file_version=3, summary=5{value=1{tag=1, simple_value=2}}}."""
    found, versions = {}, []
    for record in records(file.read_bytes()):
        event = dict(fields(record))
        versions += [event[3]] if 3 in event else []
        for number, value in fields(event.get(5, b"")):
            assert number == 1
            one = dict(fields(value))
            found.setdefault(one[1].decode(), {})[event.get(2, 0)] = struct.unpack("<f", one[2])[0]
    assert versions == [b"brain.Event:2"]
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    train(write_recipe(tmp_path_factory.mktemp("recipe")), out, "stage.short.steps=8", "stage.long.steps=1",
          "stage.long.schedule={}")
    return out


def test_the_checksum_is_the_published_one():
    assert crc32c(b"123456789") == 0xE3069283


def test_loss_rate_and_norm_of_every_step_are_those_of_the_metrics(run):
    file, = run.glob("events.out.tfevents.*")
    found, lines = scalars(file), metrics(run)
    assert len(lines) == 9
    for ours, name in (("loss", "loss"), ("grad_norm", "grad_norm"), ("learning_rate", "learning_rate")):
        tag, = [tag for tag in found if tag.split("/")[-1] == name]
        assert sorted(found[tag]) == [line["step"] for line in lines]
        for line in lines:
            assert math.isclose(found[tag][line["step"]], line[ours], rel_tol=1e-6), (tag, line["step"])
