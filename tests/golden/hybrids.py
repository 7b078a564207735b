"""Golden cases of RAT+, RAttention and linear attention at their edges, of positions that differ between layers and of
shared key/value heads, in the format and with the equations of golden.py. What golden.py does not have is written out
here from the same papers: `pos: none` for every kind, `linear`, and `kv_heads` (head h reads key/value head
h % kv_heads; in_proj rows v, q, k of kv_heads, heads and kv_heads times the head size).

Usage: python3 hybrids.py OUT_DIR   (needs torch and safetensors); writes OUT_DIR/hybrids.safetensors
"""
import sys

import torch

import golden
from golden import dump, heads, layer_case, model_case, rmsnorm, rnd, sm2, softmax_attend, unheads

published_mixer, published_params, published_rope = golden.run_mixer, golden.mixer_params, golden.rope


def linear(x, p, H, kv_heads):
    """Causal linear attention over i <= t, unnormalised, RMS-normed per head."""
    v, q, k = split(x, p, H, kv_heads)
    seen = torch.tril(torch.ones(x.shape[1], x.shape[1]))
    y = ((sm2(q) @ sm2(k).transpose(-1, -2)) * seen) @ v
    return unheads(rmsnorm(y, p["rla_norm"][:, None, :], 1e-8)) @ p["out_proj"].T


def split(x, p, H, kv_heads):
    D = x.shape[-1]
    kv = kv_heads * (D // H)
    v, q, k = torch.split(rmsnorm(x, p["norm"]) @ p["in_proj"].T, [kv, D, kv], -1)
    return heads(v, kv_heads).repeat(1, H // kv_heads, 1, 1), heads(q, H), heads(k, kv_heads).repeat(1, H // kv_heads, 1, 1)


def shared_attention(kind, x, p, H, cfg):
    """attention, swa and rattention with fewer key/value heads than heads."""
    v, q, k = split(x, p, H, cfg["kv_heads"])
    t = torch.arange(x.shape[1])
    i, j = t[:, None], t[None, :]
    near = (j <= i) & (i - j <= cfg.get("window", x.shape[1]))
    y, _ = softmax_attend(golden.rope(q, t), golden.rope(k, t), v, near)
    if kind == "rattention":
        far = ((sm2(q) @ sm2(k).transpose(-1, -2)) * (i - j > cfg["window"])) @ v
        y = rmsnorm(y, p["swa_norm"][:, None, :], 1e-8) + rmsnorm(far, p["rla_norm"][:, None, :], 1e-8)
    return unheads(y) @ p["out_proj"].T


def run_mixer(kind, x, p, H, cfg, want=None):
    golden.rope = (lambda x, pos, base=10000.0: x) if cfg.get("pos", "rope") == "none" else published_rope
    if kind == "linear":
        return linear(x, p, H, cfg.get("kv_heads", H))
    if "kv_heads" in cfg:
        return shared_attention(kind, x, p, H, cfg)
    return published_mixer(kind, x, p, H, cfg, want)


kv_heads_of_case = None  # of the layer case that is being made


def mixer_params(kind, gen, D, H, G=2, L=16):
    P = D // H
    kv = kv_heads_of_case or H
    if kind != "linear" and kv == H:
        return published_params(kind, gen, D, H, G, L)
    scale = 1.5 * D ** -0.5
    p = dict(in_proj=rnd(gen, D + 2 * kv * P, D, scale=scale), out_proj=rnd(gen, D, D, scale=scale),
             norm=1 + rnd(gen, D, scale=0.1))
    if kind == "rattention":
        p["swa_norm"] = 1 + rnd(gen, H, P, scale=0.1)
    if kind in ("rattention", "linear"):
        p["rla_norm"] = 1 + rnd(gen, H, P, scale=0.1)
    return p


golden.run_mixer, golden.mixer_params = run_mixer, mixer_params


def without_probes(case):
    tensors, meta = case
    return {k: v for k, v in tensors.items() if "/probe/" not in k}, meta


def one_layer(name, kind, seed, B, T, D, H, **cfg):
    global kv_heads_of_case
    kv_heads_of_case = cfg.get("kv_heads")
    case = without_probes(layer_case(name, kind, seed, B, T, D, H, **cfg))
    kv_heads_of_case = None
    return case


OPT = dict(lr=8e-4, betas=[0.9, 0.95], eps=1e-8, weight_decay=0.1, clip=1.0)

if __name__ == "__main__":
    dump(f"{sys.argv[1]}/hybrids.safetensors", [  # name, kind, seed, B, T, D, H, settings
        one_layer("ratplus_odd", "ratplus", 201, 2, 53, 32, 4),
        one_layer("ratplus_no_window", "ratplus", 202, 2, 53, 32, 4, dilation=8),
        one_layer("ratplus_initial", "ratplus", 203, 2, 45, 24, 6, dilation=7, window=3, initial=5),
        one_layer("ratplus_initial_beyond_dilation", "ratplus", 204, 2, 45, 24, 2, dilation=4, window=2, initial=18),
        one_layer("ratplus_beyond", "ratplus", 205, 2, 29, 32, 4, dilation=64, window=4, initial=1),
        one_layer("ratplus_all_window", "ratplus", 206, 2, 29, 32, 4, dilation=8, window=100),
        one_layer("ratplus_every_second", "ratplus", 207, 1, 130, 16, 1, dilation=2, window=70, initial=9),
        one_layer("ratplus_one_token", "ratplus", 208, 2, 1, 32, 4, dilation=4, window=1),
        one_layer("ratplus_no_positions", "ratplus", 209, 2, 37, 32, 4, dilation=5, window=2, pos="none"),
        one_layer("rattention_0", "rattention", 211, 2, 37, 32, 4, window=0),
        one_layer("rattention_1", "rattention", 212, 2, 37, 24, 6, window=1),
        one_layer("rattention_last", "rattention", 213, 2, 30, 32, 4, window=28),
        one_layer("rattention_all", "rattention", 214, 2, 30, 32, 4, window=29),
        one_layer("rattention_beyond", "rattention", 215, 1, 30, 32, 4, window=4096),
        one_layer("rattention_one_token", "rattention", 216, 2, 1, 32, 4, window=3),
        one_layer("rattention_long", "rattention", 217, 1, 300, 16, 2, window=65),
        one_layer("rattention_no_positions", "rattention", 218, 2, 41, 32, 4, window=6, pos="none"),
        one_layer("swa_no_positions", "swa", 219, 2, 41, 32, 4, window=6, pos="none"),
        one_layer("linear", "linear", 221, 2, 64, 32, 4),
        one_layer("linear_long", "linear", 222, 1, 301, 16, 1),
        one_layer("linear_one_token", "linear", 223, 2, 1, 32, 4),
        one_layer("attention_shared", "attention", 231, 2, 45, 24, 6, kv_heads=2),
        one_layer("swa_shared", "swa", 232, 2, 45, 24, 6, kv_heads=1, window=7),
        one_layer("rattention_shared", "rattention", 233, 2, 45, 24, 6, kv_heads=3, window=7),
        one_layer("linear_shared", "linear", 234, 2, 70, 24, 6, kv_heads=2),
        without_probes(model_case(
            "all_kinds", 241, 2, 41, 61, 24, 6,
            [("ratplus", dict(dilation=6, window=2, initial=1)), ("rattention", dict(window=5)), ("linear", {}),
             ("rat", dict(chunk=7, groups=3)), ("swa", dict(window=4)), ("rnn", {}), ("attention", dict(pos="none"))],
            groups=3, steps=30, opt=OPT)),
        without_probes(model_case(
            "some_without_positions", 242, 2, 39, 47, 16, 2,
            [("rattention", dict(window=8)), ("attention", dict(pos="none")), ("ratplus", dict(pos="none")),
             ("swa", dict(window=9, pos="none")), ("rat", dict(chunk=8))], steps=30, opt=OPT)),
        without_probes(model_case(
            "ratplus_dense_and_dilated", 243, 2, 50, 33, 16, 2,
            [("ratplus", {}), ("ratplus", dict(dilation=16, window=4))], steps=30, opt=OPT)),
    ])
