"""PyTorch reads what `rat export` wrote, computes the same logits with it, and writes what `rat import` reads back.

    python3 tests/peers/roundtrip_torch.py EXPORT.safetensors EXPORT.pt EXPORT.pth TOKENS LOGITS.bin BACK.pth

EXPORT.*: the same run in the three forms. TOKENS: ids separated by commas. LOGITS.bin: the program's own logits for
them, raw float32 (T, V). BACK.pth: written here with torch.save, as a checkpoint of the published training code.
Prints the largest difference of the logits. The model below is written from the equations (tests/golden/golden.py); it
loads the tensors by the published names with load_state_dict, so a name or a shape that differs is an error.
"""
import json
import math
import struct
import sys

import torch
import torch.nn.functional as F
from torch import nn


def read_safetensors(path):
    with open(path, "rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
        data = file.read()
    spec = json.loads(header.pop("__metadata__")["spec"])
    tensors = {}
    for name, info in header.items():
        assert info["dtype"] == "F32"
        begin, end = info["data_offsets"]
        tensors[name] = torch.frombuffer(bytearray(data[begin:end]), dtype=torch.float32).reshape(info["shape"])
    return spec, tensors


def rope(x, positions, base):
    """x (H, T, P); the halves of P form the rotated pairs."""
    half = x.shape[-1] // 2
    angle = positions.double()[:, None] * base ** (-torch.arange(half, dtype=torch.float64) / half)
    cos, sin = angle.cos().to(x), angle.sin().to(x)
    a, b = x[..., :half], x[..., half:]
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


class Norm(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size))

    def forward(self, x):
        return F.rms_norm(x, (x.shape[-1],), self.weight, 1e-6)


class SequenceLayer(nn.Module):
    def __init__(self, model, layer):
        super().__init__()
        self.kind, self.layer, self.base = layer["kind"], layer, model["rope_base"]
        self.D, self.H, self.G = model["d_model"], model["heads"], model["groups"]
        self.P = self.D // self.H
        rat = self.kind == "rat"
        self.in_proj = nn.Linear(self.D, 3 * self.D + (2 * self.G * self.P if rat else 0), bias=False)
        self.out_proj = nn.Linear(self.D, self.D, bias=False)
        self.input_norm = Norm(self.D)
        if self.kind in ("rat", "rnn"):
            self.gate_bias = nn.Parameter(torch.empty(self.D))

    def heads(self, x):  # (T, D) -> (H, T, P)
        return x.reshape(len(x), self.H, self.P).transpose(0, 1)

    def attend(self, x):
        v, q, k = (self.heads(part) for part in self.in_proj(x).split(self.D, -1))
        t = torch.arange(len(x))
        score = rope(q, t, self.base) @ rope(k, t, self.base).transpose(1, 2) / math.sqrt(self.P)
        back = t[:, None] - t[None, :]
        seen = (back >= 0) & (back <= self.layer.get("window", len(x)) if self.kind == "swa" else back >= 0)
        return (score.masked_fill(~seen, -math.inf).softmax(-1) @ v).transpose(0, 1).reshape(len(x), self.D)

    def scan(self, gate, value, chunk):
        out, state = [], None
        for t in range(len(value)):
            state = (1 - gate[t]) * value[t] + (0 if t % chunk == 0 else gate[t] * state)
            out.append(state)
        return torch.stack(out)

    def forward(self, x):
        normed = self.input_norm(x)
        if self.kind in ("attention", "swa"):
            return x + self.out_proj(self.attend(normed))
        if self.kind == "rnn":
            z, v, g = self.in_proj(normed).split(self.D, -1)
            return x + self.out_proj(z.sigmoid() * self.scan((g + self.gate_bias).sigmoid(), v, len(x)))
        width, T, L = self.G * self.P, len(x), self.layer["chunk"]
        z, v, g, q, k = self.in_proj(normed).split([self.D, self.D, self.D, width, width], -1)
        gate = (g + self.gate_bias).sigmoid()
        q, k = (part.repeat(1, self.H // self.G) for part in (q, k))
        state_k, state_v = (self.heads(self.scan(gate, part, L)) for part in (k, v))
        chunk = torch.arange(T) // L
        q, state_k = rope(self.heads(q), chunk, self.base), rope(state_k, chunk, self.base)
        ends = torch.arange(L - 1, T, L)
        score = q @ state_k[:, ends].transpose(1, 2) / math.sqrt(self.P)
        score = score.masked_fill(chunk[:, None] <= torch.arange(len(ends))[None, :], -math.inf)
        own = (q * state_k).sum(-1, keepdim=True) / math.sqrt(self.P)
        weight = torch.cat((score, own), -1).softmax(-1)
        out = weight[..., :-1] @ state_v[:, ends] + weight[..., -1:] * state_v
        return x + self.out_proj(z.sigmoid() * out.transpose(0, 1).reshape(T, self.D))


class Hidden(nn.Module):
    def __init__(self, D, mult):
        super().__init__()
        self.fc1, self.fc2, self.ln = nn.Linear(D, mult * D, bias=False), nn.Linear(mult * D, D, bias=False), Norm(D)

    def forward(self, x):
        return x + self.fc2(F.gelu(self.fc1(self.ln(x))))


class Block(nn.Module):
    def __init__(self, model, layer):
        super().__init__()
        self.seq_layer, self.hidden_layer = SequenceLayer(model, layer), Hidden(model["d_model"], model["ffn_mult"])

    def forward(self, x):
        return self.hidden_layer(self.seq_layer(x))


class LanguageModel(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.embedding, self.backbone, self.head = nn.Module(), nn.Module(), nn.Module()
        self.embedding.wte = nn.Embedding(model["vocab"], model["d_model"])
        self.backbone.layers = nn.ModuleList(Block(model, layer) for layer in model["layers"])
        self.backbone.ln = Norm(model["d_model"])
        self.head.lm_head = nn.Linear(model["d_model"], model["vocab"], bias=False)

    def forward(self, tokens):
        x = self.embedding.wte(tokens)
        for layer in self.backbone.layers:
            x = layer(x)
        return self.head.lm_head(self.backbone.ln(x))


def main(safetensors, pt, pth, tokens, logits, back):
    torch.manual_seed(0)
    spec, tensors = read_safetensors(safetensors)
    model = LanguageModel(spec["model"])
    for state in (tensors, torch.load(pt, weights_only=True), torch.load(pth, weights_only=True)["task"]):
        model.load_state_dict(state, strict=True)
        for name, value in model.state_dict().items():
            assert torch.equal(value, tensors[name]), name
    ids = torch.tensor([int(word) for word in tokens.split(",")])
    with open(logits, "rb") as file:
        wanted = torch.frombuffer(bytearray(file.read()), dtype=torch.float32).reshape(len(ids), -1)
    with torch.no_grad():
        worst = (model(ids) - wanted).abs().max().item()
    print(f"largest difference of the logits {worst:.2e}")
    assert worst <= 1e-4, "the two programs compute different logits"
    torch.save({"task": model.state_dict(), "step": 7, "optimizer": {"state": {}, "param_groups": []}}, back)


if __name__ == "__main__":
    main(*sys.argv[1:])
