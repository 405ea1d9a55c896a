"""Damage of every class that a model directory can have. Each takes (random, folder) and changes it."""

import json
import os
import socket
import struct

ESCAPES = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202e\u2028\r\n\x00"
NUMBERS = [0, -1, 1, 2, 3, 7, 63, 64, 65, 511, 512, 513, 4096, 4194304, 2**24, 2**24 + 1, 2**31 - 1, 2**31,
           2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), 1e308, 1e-320, 0.5, -0.0, 1e400]  # fmt: skip
TEXTS = ["", ESCAPES, "a" * 3000, "\ud83d\ude00" * 50, "../../etc/passwd", "/dev/zero", "{{ x }}", "nan",
         ESCAPES * 100]  # fmt: skip


def strange(random):
    """A value that nobody expects."""
    return random.choice([
        None, True, False, [], {}, [[]], [None], {"a": {"a": {}}}, random.choice(NUMBERS), random.choice(NUMBERS),
        random.choice(TEXTS), random.choice(TEXTS), [random.choice(NUMBERS)] * 9, {random.choice(TEXTS): 1},
        nested(random.choice([30, 70, 500])), list(range(2000)),
    ])  # fmt: skip


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def files(folder, ends=""):
    return [p for p in sorted(folder.iterdir()) if p.is_file() and not p.is_symlink() and p.name.endswith(ends)]


def one_file(random, folder, ends=""):
    found = files(folder, ends)
    return random.choice(found) if found else None


# Bytes ---------------------------------------------------------------------------------------


def place(random, size, head):
    """Where to damage: often in what comes first, which says how the rest is read."""
    return random.randrange(min(size, head) if random.random() < 0.6 else size) if size else 0


def damage(random, content):
    at = place(random, len(content), 2048)
    piece = content[at : at + random.randrange(1, 64)]
    kind = random.randrange(8)
    if kind == 0 and content:
        content[at] ^= 1 << random.randrange(8)
    elif kind == 1 and content:
        content[at] = random.choice([0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)])
    elif kind == 2:
        del content[at : at + random.randrange(1, 64)]
    elif kind == 3:
        content[at:at] = random.randbytes(random.randrange(1, 16))
    elif kind == 4:
        content[at:at] = piece * random.randrange(1, 40)
    elif kind == 5:
        del content[at:]
    elif kind == 6:
        number = random.choice([n for n in NUMBERS if isinstance(n, int)]) % 2**64
        content[at : at + 8] = struct.pack("<Q", number)
    else:
        content[at : at + 4] = struct.pack("<I", random.choice([0, 1, 0xFF, 0xFFFF, 2**31, 2**32 - 1]))


def change_bytes(random, folder, ends=""):
    path = one_file(random, folder, ends)
    if path is None:
        return
    content = bytearray(path.read_bytes())
    for _ in range(random.randrange(1, 4)):
        damage(random, content)
    path.write_bytes(content)


def change_gguf(random, folder):
    change_bytes(random, folder, ".gguf")


# JSON ----------------------------------------------------------------------------------------


def places(value, found=None):
    """(container, key) of everything inside."""
    found = [] if found is None else found
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found.append((value, key))
        places(inner, found)
    return found


def change_value(random, root):
    # Of long lists and vocabularies one place is like another.
    found = places(root)
    if not found:
        return
    shallow = [(c, k) for c, k in found if len(c) < 64] or found
    container, key = random.choice(shallow if random.random() < 0.8 else found)
    kind = random.randrange(6)
    if kind == 0:
        del container[key]
    elif kind == 1 and isinstance(container, dict):
        container[random.choice(TEXTS)] = container.pop(key)
    elif kind == 2 and isinstance(container, list):
        container.extend([container[key]] * random.choice([1, 10, 3000]))
    elif kind == 3:
        other, at = random.choice(found)
        container[key] = json.loads(json.dumps(other[at]))
    else:
        container[key] = strange(random)


def dump(value):
    return json.dumps(value).encode("utf-8", "surrogatepass")


def change_json(random, folder, ends=".json"):
    path = one_file(random, folder, ends)
    if path is None:
        return
    try:
        root = json.loads(path.read_bytes())
    except ValueError:
        return
    for _ in range(random.randrange(1, 4)):
        change_value(random, root)
    content = dump(root)
    if random.random() < 0.05 and content.startswith(b"{"):  # a key twice
        content = b'{"model_type": "llama", "version": 2, ' + content[1:]
    path.write_bytes(content)


def change_config(random, folder):
    path = folder / "config.json"
    if not path.is_file():
        return
    root = json.loads(path.read_bytes())
    keys = [key for key, value in root.items() if isinstance(value, (int, float)) or value is None]
    for key in random.sample(keys, min(len(keys), random.randrange(1, 3))):
        root[key] = random.choice(NUMBERS)
    path.write_bytes(dump(root))


# Weights -------------------------------------------------------------------------------------


def split(content):
    size = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + size]), bytearray(content[8 + size :])


def join(header, data):
    text = dump(header)
    return struct.pack("<Q", len(text)) + text + bytes(data)


def one_checkpoint(random, folder):
    """A file of weights, its header and its data; three times None if there is none that still parses."""
    path = one_file(random, folder, ".safetensors")
    try:
        return (path, *split(path.read_bytes())) if path else (None, None, None)
    except (ValueError, struct.error):
        return None, None, None


def change_header(random, folder):
    path, header, data = one_checkpoint(random, folder)
    if path is None:
        return
    if random.random() < 0.1:
        header |= {f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(20_000)}
    for _ in range(random.randrange(1, 3)):
        change_value(random, header)
    path.write_bytes(join(header, data))


def change_weights(random, folder):
    path, header, data = one_checkpoint(random, folder)
    if path is None:
        return
    bad = random.choice([b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f", b"\x00\x00\x80\xff", b"\xff\xff\x7f\x7f"])
    for _ in range(random.choice([1, 1, 100])):
        at = 4 * random.randrange(max(1, len(data) // 4))
        data[at : at + 4] = bad
    path.write_bytes(join(header, data))


def change_index(random, folder):
    path = folder / "model.safetensors.index.json"
    if not path.is_file():
        if (folder / "model.safetensors").is_file():
            path.write_bytes(dump({"weight_map": {"a": "model.safetensors"}}))
        return
    root = json.loads(path.read_bytes())
    names = [*TEXTS, "model.safetensors", ".", "..", "model-00001-of-00002.safetensors", 7, None]
    for _ in range(random.randrange(1, 4)):
        root["weight_map"][random.choice(list(root["weight_map"]))] = random.choice(names)
    path.write_bytes(dump(root))


def change_adapter(random, folder):
    path = folder / "adapter.safetensors"
    if path.is_file():
        header, data = split(path.read_bytes())
        meta = json.loads(header["__metadata__"]["dmc_config"])
        change_value(random, meta)
        header["__metadata__"]["dmc_config"] = json.dumps(meta)
        path.write_bytes(join(header, data))


# What stands in place of a file ---------------------------------------------------------------


def replace_file(random, folder):
    path = one_file(random, folder)
    if path is None:
        return
    path.unlink()
    kind = random.randrange(8)
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        path.mkdir()
    elif kind == 2:
        path.write_bytes(b"")
    elif kind == 3:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path)) if len(str(path)) < 100 else path.write_bytes(b"x")
    elif kind < 7:
        path.symlink_to(random.choice(["/dev/zero", "/dev/urandom", "/dev/stdin", "/proc/self/mem", "nowhere",
                                       path.name, "/proc/kmsg", "/dev/full", "/proc/self/environ"]))  # fmt: skip


# Tokenizers and templates ---------------------------------------------------------------------


def composed_step(random):
    text = random.choice(["a", "e", " ", "th", "▁", ESCAPES])
    return random.choice([
        {"type": "Replace", "pattern": {"String": text}, "content": text * random.choice([2, 2, 100])},
        {"type": "Replace", "pattern": {"Regex": random.choice(["(a*)*b", "(.|\\s)+x|.", "a+b|a", ".", "(", "\\p{L}+"])},
         "content": text},
        {"type": "Prepend", "prepend": text * random.choice([1, 1000])},
        {"type": "NFKD"}, {"type": "Lowercase"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        {"type": "ByteFallback"}, {"type": "WordPiece", "prefix": text}, {"type": "Metaspace", "replacement": text},
    ])  # fmt: skip


def change_tokenizer(random, folder):
    path = folder / "tokenizer.json"
    if not path.is_file():
        return change_bytes(random, folder, random.choice([".model", "vocab.json", ".txt"]))
    root = json.loads(path.read_bytes())
    steps = [composed_step(random)] * random.choice([1, 20, 60]) + [composed_step(random)]
    kind = random.randrange(7)
    if kind == 0:
        root["decoder"] = {"type": "Sequence", "decoders": steps}
    elif kind == 1:
        root["normalizer"] = {"type": "Sequence", "normalizers": steps}
    elif kind == 2:
        pattern = random.choice(["(a*)*b", "(.|\\s)*x|.", "a+b|a", "(?=(.*))", ".{1,999}", "(" * 50, "\\w+" * 200])
        split_at = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated"}
        root["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split_at] * random.choice([1, 30])}
    elif kind == 3 and isinstance(root["model"].get("vocab"), dict):
        root["model"]["vocab"][random.choice(["zz", "é", ESCAPES])] = random.choice([512, 513, 4000, 2**22 - 1, 2**22])
    elif kind == 4:
        texts = [random.choice(["a", "th", "<x>", ESCAPES, "a" * 1024]) + str(i) for i in range(random.choice([1, 3000]))]
        root["added_tokens"] = [{"id": random.choice([0, 300, 511, 512, 99999]), "content": text, "special": True,
                                 "normalized": True, "lstrip": True} for text in texts]  # fmt: skip
    elif kind == 5:
        root["post_processor"] = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x"}}] * 3,
                                  "special_tokens": {"x": {"ids": [random.choice([0, 511, 512, 99999])] * 5000}}}  # fmt: skip
    else:
        change_value(random, root)
    path.write_bytes(dump(root))
    return None


TEMPLATES = [
    "{{ raise_exception('" + ESCAPES.replace("\n", " ").replace("\x00", "") + "' * 200) }}",
    "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
    "{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}",
    "{% set ns = namespace(l=[1,2,3]) %}{% for i in range(99) %}{% set ns.l = ns.l + ns.l %}{% endfor %}{{ ns.l }}",
    "{% set ns = namespace(l=[]) %}{% for i in range(9999) %}{% set ns.l = ns.l + ['a' * 9999] %}{% endfor %}{{ ns.l|length }}",
    "{{ 'a' * 999999999 }}", "{{ ('a' * 99999).split('a') | join('b' * 99999) }}", "{{ x.y.z }}",
    "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}", "{{ " + "(" * 300 + "1" + ")" * 300 + " }}",
    "{% if messages[0].role == '\x1b[31m' %}{% endfor %}", "{{ messages | tojson(indent=9999) }}",
    "{{ messages[0].content.replace('', 'a' * 9999) }}", "{{ '%s' | format(messages) }}", "{{ [0] * 999999 }}",
    "{% for m in messages %}{{ m.content }}{% endfor %}", "{{ '\u202e\x1b[2J' | nofilter }}", "",
]  # fmt: skip


def change_template(random, folder):
    text = random.choice(TEMPLATES)
    if random.random() < 0.3:
        content = bytearray(text.encode())
        damage(random, content)
        (folder / "chat_template.jinja").write_bytes(content)
    else:
        (folder / "chat_template.jinja").write_text(text)


def change_side_file(random, folder):
    path = folder / random.choice(["generation_config.json", "special_tokens_map.json", "tokenizer_config.json"])
    root = json.loads(path.read_bytes()) if path.is_file() else {"eos_token_id": 0}
    for _ in range(random.randrange(1, 3)):
        change_value(random, root)
    if random.random() < 0.3:
        root = {"eos_token_id": strange(random), "eos_token": strange(random), "chat_template": strange(random)}
    path.write_bytes(dump(root))


CLASSES = {
    "bytes": change_bytes, "json": change_json, "config": change_config, "header": change_header,
    "weights": change_weights, "index": change_index, "adapter": change_adapter, "file": replace_file,
    "tokenizer": change_tokenizer, "template": change_template, "side": change_side_file, "gguf": change_gguf,
}  # fmt: skip
# Which classes a kind of model has something for.
ONLY = {"index": "shards", "adapter": "adapter", "gguf": "gguf"}
