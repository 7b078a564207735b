"""Awkward golden cases: ragged and single-token chunks, odd group counts, windows of 0 and beyond the sequence, other
head sizes, no positions, and hybrids trained for 30 steps. Same format and reference as golden.py.

Usage: python3 awkward.py OUT_DIR   (needs torch and safetensors); writes OUT_DIR/awkward.safetensors
"""
import sys

from golden import dump, layer_case, model_case


def without_probes(case):
    tensors, meta = case
    return {k: v for k, v in tensors.items() if "/probe/" not in k}, meta


OPT = dict(lr=8e-4, betas=[0.9, 0.95], eps=1e-8, weight_decay=0.1, clip=1.0)
NO_CLIP = dict(lr=2e-3, betas=[0.8, 0.99], eps=1e-6, weight_decay=0.0, clip=1e9)

CASES = [  # name, kind, seed, B, T, D, H, settings
    layer_case("rat_ragged", "rat", 101, 2, 53, 32, 4, chunk=16),
    layer_case("rat_prime", "rat", 102, 3, 41, 32, 4, chunk=7),
    layer_case("rat_groups_3", "rat", 103, 2, 37, 48, 6, chunk=8, groups=3),
    layer_case("rat_groups_1", "rat", 104, 1, 30, 32, 4, chunk=8, groups=1),
    layer_case("rat_groups_all", "rat", 105, 2, 34, 32, 4, chunk=16, groups=4),
    layer_case("rat_beyond", "rat", 106, 2, 37, 32, 4, chunk=64),
    layer_case("rat_last_of_1", "rat", 107, 2, 33, 32, 4, chunk=16),
    layer_case("rat_one_token", "rat", 108, 2, 1, 32, 4, chunk=4),
    layer_case("rat_no_positions", "rat", 109, 2, 43, 32, 4, chunk=4, pos="none"),
    layer_case("rat_wide_head", "rat", 110, 1, 70, 64, 1, chunk=16, groups=1),
    layer_case("rat_narrow_head", "rat", 111, 2, 45, 24, 12, chunk=6, groups=3),
    layer_case("rat_long", "rat", 112, 1, 257, 32, 4, chunk=2),
    layer_case("attention_odd", "attention", 113, 3, 67, 48, 6),
    layer_case("attention_one_token", "attention", 114, 2, 1, 32, 4),
    layer_case("attention_no_positions", "attention", 115, 2, 40, 32, 4, pos="none"),
    layer_case("attention_long", "attention", 116, 1, 300, 32, 2),
    layer_case("swa_0", "swa", 117, 2, 29, 32, 4, window=0),
    layer_case("swa_1", "swa", 118, 2, 29, 32, 4, window=1),
    layer_case("swa_long", "swa", 119, 2, 101, 32, 4, window=77),
    layer_case("swa_all", "swa", 120, 2, 40, 32, 4, window=39),
    layer_case("swa_beyond", "swa", 121, 2, 40, 32, 4, window=4096),
    layer_case("rnn_long", "rnn", 122, 2, 203, 32, 4),
    layer_case("rnn_one_token", "rnn", 123, 2, 1, 32, 4),
    model_case("hybrid", 131, 2, 45, 61, 24, 6,
               [("rat", dict(chunk=7, groups=3)), ("swa", dict(window=5)), ("attention", {}), ("rnn", {})],
               groups=3, steps=30, opt=OPT),
    model_case("hybrid_long_window", 132, 2, 50, 130, 16, 2,
               [("rat", dict(chunk=16)), ("swa", dict(window=44))], steps=30, opt=OPT),
    model_case("rat_token_and_whole", 133, 1, 32, 17, 16, 2,
               [("rat", dict(chunk=1)), ("rat", dict(chunk=32))], steps=30, opt=NO_CLIP),
    model_case("no_positions", 134, 2, 21, 23, 16, 2,
               [("rat", dict(chunk=4, pos="none")), ("attention", dict(pos="none"))], steps=30, opt=OPT),
]

if __name__ == "__main__":
    dump(f"{sys.argv[1]}/awkward.safetensors", [without_probes(case) for case in CASES])
