# Work for the CPython guest, the same in every Python 3: sorting, big integers, text, JSON,
# compression, and an SHA-256 over all of it. Prints a line for each seed it is given.
import hashlib
import json
import re
import sys
import zlib


def work(seed):
    x, numbers = seed, []
    for _ in range(3000):
        x = (x * 1664525 + 1013904223) & 0xFFFFFFFF
        numbers.append(x)
    numbers.sort()
    product = 1
    for n in numbers[:200]:
        product *= n | 1
    words = re.findall(r"[1-9]{3}", " ".join(map(str, numbers)))
    counts = {}
    for word in words:
        counts[word] = counts.get(word, 0) + 1
    text = json.dumps({"product": hex(product), "counts": counts}, sort_keys=True)
    # What zlib makes may differ from version to version; what it gives back may not.
    back = zlib.decompress(zlib.compress(text.encode()))
    sha = hashlib.sha256(back)
    for n in numbers:
        sha.update(n.to_bytes(4, "big"))
    return sha.hexdigest()


for argument in sys.argv[1:]:
    print(argument, work(int(argument)))
