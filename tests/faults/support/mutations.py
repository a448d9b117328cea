"""Malformed bytes: valid ones with something done to them, and some that never were."""

import random

_NASTY = (
    b"\x00", b"\xff\xfe", b"\xff\xff\xff", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\x0b", b"\x0c",
    b"\x02\x00", b"\x0f", b"\x0a\xff\xff\xff\xff\x0f", b"\x08" + b"\xff" * 11, b"\x0a\x05ab", b'"', b"\\u0000",
    b"\\ud800", b"{", b"[", b"null", b"1e400", b"NaN", b"-1", b"\xef\xbb\xbf", b"'; --", b"%s", b"\r\n\r\n",
)  # fmt: skip


def mutated(randomness: random.Random, seeds: list[bytes]) -> bytes:
    """Make bytes that are one of `seeds` with one to four things done to it, or, one in eight times, all random."""
    if not randomness.randrange(8):
        return randomness.randbytes(randomness.randrange(300))
    data = bytearray(randomness.choice(seeds))
    for _ in range(randomness.randrange(1, 5)):
        _mutate(randomness, data, seeds)
    return bytes(data)


def _mutate(randomness: random.Random, data: bytearray, seeds: list[bytes]) -> None:
    first, last = sorted(randomness.choices(range(len(data) + 1), k=2))
    match randomness.randrange(9):
        case 0 if data:
            data[randomness.randrange(len(data))] ^= 1 << randomness.randrange(8)
        case 1:
            del data[first:]
        case 2:
            del data[first:last]
        case 3:
            data[first:first] = randomness.randbytes(randomness.randrange(1, 20))
        case 4:
            data[first:first] = randomness.choice(_NASTY)
        case 5:
            data[first:last] = data[first:last] * randomness.randrange(2, 20)
        case 6:
            data[first:] = randomness.choice(seeds)[first:]
        case 7:  # a message within a message within a message …
            for _ in range(randomness.choice((1, 50, 101, 200))):
                data[:0] = b"\x0a" + _varint(len(data))
        case _:  # a field that nobody knows
            data[first:first] = b"\xa2\x93\xf4\x01\x20" + randomness.randbytes(32)


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
