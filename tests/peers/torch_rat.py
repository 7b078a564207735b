"""A RAT language model in plain PyTorch, and how fast it trains and decodes: the peer that `rat bench` is compared with.

Usage: python3 torch_rat.py [--seq-len T] [--tokens N] [--mode eager,compile,compile-layers] [--dtype f32,bf16-autocast,bf16-pure]
                            [--what train,decode,layer-train,layer-prefill] [--scan loop,doubling,associative]
                            [--attention plain|flex] [--device cpu|cuda] [--check]
Prints one JSON list with medians and quartiles. Needs only torch. The equations are those of tests/golden/golden.py.
`compile-layers` compiles one layer for all of them: minutes sooner than the whole model where there are many.
`layer-...` is the sequence half of one block alone, with its norm, projections and residual, as `rat bench layer` has it.

What was chosen for speed, so that the comparison is with a fair PyTorch program:
- the recurrence runs over the L positions of all chunks of all sequences at once (`loop`), by recursive doubling in
  log2 L steps (`doubling`), or as PyTorch's associative scan with a backward scan written out (`associative`: compiled, on
  a GPU); torch.compile fuses each into few kernels;
- attention is over the chunk-end states (C columns), and the own key is one more column of the same softmax: no T x T.
  With `flex` it is FlexAttention over the chunk ends, joined with the own key through the log-sum-exp: no T x C either;
  its block mask is made outside the timed steps;
- AdamW and clipping are PyTorch's fused and multi-tensor ones;
- bf16 either by autocast (f32 master weights, as ours) or with the whole model in bf16 (no master weights: faster and
  less accurate). Decoding keeps a cache of fixed size under torch.compile, so that nothing is compiled again.
"""
import argparse, json, math, statistics, sys, time
import torch
import torch.nn.functional as F
from torch._higher_order_ops.associative_scan import associative_scan
from torch.nn.attention.flex_attention import create_block_mask, flex_attention


def wide(x):  # softmax and loss of bf16 values are computed in f32, as autocast does
    return x.float() if x.dtype == torch.bfloat16 else x


def rms_norm(x, weight):
    return F.rms_norm(x, (x.shape[-1],), weight, 1e-6)


def rope_tables(positions, size):
    kind = torch.get_default_dtype()
    angle = positions.to(kind)[:, None] / 10000.0 ** (torch.arange(0, size, 2).to(kind) / size)
    return torch.cat([angle, angle], -1).cos(), torch.cat([angle, angle], -1).sin()


def rotate(x, cos, sin):
    low, high = x.chunk(2, -1)
    return x * cos + torch.cat([-high, low], -1) * sin


def scan_loop(gate, fresh):
    """state[l] = gate[l] state[l-1] + fresh[l] along dimension 2 of (B, C, L, D)."""
    state, states = fresh[:, :, 0], [fresh[:, :, 0]]
    for l in range(1, gate.shape[2]):
        state = torch.addcmul(fresh[:, :, l], gate[:, :, l], state)
        states.append(state)
    return torch.stack(states, 2)


def scan_doubling(gate, state):
    reach = 1
    while reach < gate.shape[2]:
        state = torch.cat([state[:, :, :reach], torch.addcmul(state[:, :, reach:], gate[:, :, reach:], state[:, :, :-reach])], 2)
        gate = torch.cat([gate[:, :, :reach], gate[:, :, reach:] * gate[:, :, :-reach]], 2)
        reach *= 2
    return state


def join(left, right):  # of (gate, state): first left, then right
    return left[0] * right[0], right[0] * left[1] + right[1]


class ScanAssociative(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gate, fresh):
        states = associative_scan(join, (gate, fresh), 2, combine_mode="pointwise")[1]
        ctx.save_for_backward(gate, states)
        return states

    @staticmethod
    def backward(ctx, grad):
        gate, states = ctx.saved_tensors
        after = F.pad(gate[:, :, 1:], (0, 0, 0, 1))  # the gate that a state goes through to the next one
        total = associative_scan(join, (after, grad.contiguous()), 2, reverse=True, combine_mode="pointwise")[1]
        return total * F.pad(states[:, :, :-1], (0, 0, 1, 0)), total


SCANS = {"loop": scan_loop, "doubling": scan_doubling, "associative": ScanAssociative.apply}


class Layer(torch.nn.Module):
    def __init__(self, a):
        super().__init__()
        self.a, self.P, D, G = a, a.d_model // a.heads, a.d_model, a.groups
        self.W = G * self.P
        self.norm, self.ln = (torch.nn.Parameter(torch.ones(D)) for _ in range(2))
        self.in_proj = torch.nn.Linear(D, 3 * D + 2 * self.W, bias=False)
        self.out_proj = torch.nn.Linear(D, D, bias=False)
        self.gate_bias = torch.nn.Parameter(torch.log(1 + torch.rand(D) * (a.chunk - 2)))
        self.fc1, self.fc2 = torch.nn.Linear(D, 4 * D, bias=False), torch.nn.Linear(4 * D, D, bias=False)
        for linear in (self.in_proj, self.out_proj, self.fc1, self.fc2):
            torch.nn.init.normal_(linear.weight, std=0.02)

    def heads_of_queries(self, q):  # (.., G P) -> (.., H P): head h reads group h % G
        return q.repeat(*[1] * (q.dim() - 1), self.a.heads // self.a.groups)

    def project(self, x):
        D, W = self.a.d_model, self.W
        z, v, g, q, k = torch.split(self.in_proj(rms_norm(x, self.norm)), [D, D, D, W, W], -1)
        return torch.sigmoid(z), v, torch.sigmoid(g + self.gate_bias.to(g.dtype)), self.heads_of_queries(q), self.heads_of_queries(k)

    def feed_forward(self, x):
        return x + self.fc2(F.gelu(self.fc1(rms_norm(x, self.ln))))

    def attend(self, q, keys, values, own_k, own_v, mask):  # (B, H, T or C, P); q of the own key is not rotated
        (rotated, q), scale, C = q, self.P ** -0.5, keys.shape[2]
        own = (q * own_k).sum(-1, keepdim=True) * scale
        if self.a.attention == "flex":
            y, lse = flex_attention(rotated, keys, values, block_mask=mask, scale=scale, return_lse=True)
            both = torch.logaddexp(lse[..., None], wide(own))
            return y * torch.exp(lse[..., None] - both).to(y.dtype) + own_v * torch.exp(own - both).to(y.dtype)
        scores = rotated @ keys.transpose(-1, -2) * scale + mask
        weights = torch.softmax(wide(torch.cat([scores, own], -1)), -1).to(values.dtype)
        return weights[..., :C] @ values + weights[..., C:] * own_v

    def forward(self, x, cos, sin, mask):
        return self.feed_forward(self.mix(x, cos, sin, mask))

    def mix(self, x, cos, sin, mask):  # x (B, T, D), T a multiple of L
        a, P = self.a, self.P
        B, T, D = x.shape
        L, C, H = a.chunk, T // a.chunk, a.heads
        z, v, g, q, k = self.project(x)
        chunks = lambda t: t.view(B, C, L, D)
        gate, scan = chunks(g), SCANS[a.scan]
        vs, ks = scan(gate, chunks((1 - g) * v)), scan(gate, chunks((1 - g) * k))
        heads = lambda t: t.reshape(B, T, H, P).transpose(1, 2)
        ends = lambda t: t[:, :, -1].reshape(B, C, H, P).transpose(1, 2)
        qh = heads(q)
        by_chunk = rotate(qh.view(B, H, C, L, P), cos[:, None], sin[:, None]).view(B, H, T, P).to(ks.dtype)
        y = self.attend((by_chunk, qh), rotate(ends(ks), cos, sin).to(ks.dtype), ends(vs), heads(ks), heads(vs), mask)
        return x + self.out_proj(z * y.transpose(1, 2).reshape(B, T, D))

    # One token. `ends` (2, H, C, P): rotated keys and values of finished chunks, `seen` (C): 0 or -inf; state (2, D).
    def step(self, x, state, ends, seen, keep, cos, sin):
        H, P = self.a.heads, self.P
        z, v, g, q, k = self.project(x)
        state = keep * g * state + (1 - g) * torch.stack([k, v])
        qh, kh, vh = q.view(H, 1, P), state[0].view(H, 1, P), state[1].view(H, 1, P)
        scores = rotate(qh, cos, sin).to(x.dtype) @ ends[0].transpose(-1, -2) * P ** -0.5 + seen
        own = (qh * kh).sum(-1, keepdim=True) * P ** -0.5
        weights = torch.softmax(torch.cat([scores, own], -1), -1)
        y = weights[..., :-1] @ ends[1] + weights[..., -1:] * vh
        return self.feed_forward(x + self.out_proj(z * y.reshape(-1))), state, torch.stack([rotate(kh, cos, sin).to(x.dtype), vh])


class Model(torch.nn.Module):
    def __init__(self, a):
        super().__init__()
        self.a = a
        self.embedding = torch.nn.Embedding(a.vocab, a.d_model)
        self.layers = torch.nn.ModuleList(Layer(a) for _ in range(a.layers))
        self.norm = torch.nn.Parameter(torch.ones(a.d_model))
        self.head = torch.nn.Linear(a.d_model, a.vocab, bias=False)
        torch.nn.init.normal_(self.embedding.weight, std=0.02)
        torch.nn.init.normal_(self.head.weight, std=0.02)

    def forward(self, tokens, targets, cos, sin, mask):
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x, cos, sin, mask)
        return F.cross_entropy(wide(self.head(rms_norm(x, self.norm))).flatten(0, 1), targets.flatten())

    def step(self, token, states, ends, seen, keep, cos, sin):
        x, new_states, new_ends = self.embedding(token), [], []
        for i, layer in enumerate(self.layers):
            x, state, end = layer.step(x, states[i], ends[i], seen, keep, cos, sin)
            new_states.append(state)
            new_ends.append(end)
        return self.head(rms_norm(x, self.norm)), torch.stack(new_states), torch.stack(new_ends)


def chunk_tables(a, T):
    C = T // a.chunk
    cos, sin = rope_tables(torch.arange(C), a.d_model // a.heads)
    if a.attention == "flex":
        L = a.chunk
        return cos, sin, create_block_mask(lambda b, h, t, c: c < t // L, None, None, T, C, device=torch.get_default_device())
    chunk = torch.arange(T) // a.chunk
    mask = torch.zeros(T, C).masked_fill(torch.arange(C)[None] >= chunk[:, None], -math.inf)
    return cos, sin, mask


def timed(call, repetitions, warmup, seconds):
    def once():
        call()
        if torch.get_default_device().type == "cuda":
            torch.cuda.synchronize()

    for _ in range(warmup):
        once()
    ms = []
    while len(ms) < repetitions and (len(ms) < 5 or sum(ms) < 1000 * seconds):
        begin = time.perf_counter()
        once()
        ms.append(1000 * (time.perf_counter() - begin))
    q1, median, q3 = statistics.quantiles(ms, n=4, method="inclusive")
    return {"repetitions": len(ms), "median_ms": median, "q1_ms": q1, "q3_ms": q3}


def train(a, mode, dtype):
    torch.manual_seed(1)
    model = Model(a)
    pure, auto = dtype == "bf16-pure", dtype == "bf16-autocast"
    if pure:
        model = model.bfloat16()
    B = max(1, a.tokens // a.seq_len)
    data = torch.randint(a.vocab, (B, a.seq_len + 1))
    cos, sin, mask = chunk_tables(a, a.seq_len)
    if (pure or auto) and a.attention == "plain":
        mask = mask.bfloat16()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    forward = torch.compile(model) if mode == "compile" else model
    if mode == "compile-layers":
        for one in model.layers:
            one.compile()

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(a.device, torch.bfloat16, enabled=auto):
            loss = forward(data[:, :-1], data[:, 1:], cos, sin, mask)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
        optimizer.step()

    row = timed(step, a.repetitions, 2, a.seconds)
    return {**row, "seq_len": a.seq_len, "batch": B, "tokens_per_s": 1000 * B * a.seq_len / row["median_ms"]}


def layer(a, mode, dtype, backward):
    """The sequence half of a block alone, all in bf16 (`bf16-pure`) or f32."""
    torch.manual_seed(1)
    kind = torch.bfloat16 if dtype == "bf16-pure" else torch.float32
    one, B = Layer(a).to(kind), max(1, a.tokens // a.seq_len)
    cos, sin, mask = chunk_tables(a, a.seq_len)
    if a.attention == "plain":
        mask = mask.to(kind)
    x = torch.randn(B, a.seq_len, a.d_model, dtype=kind, requires_grad=backward)
    grad = torch.randn_like(x)
    mix = one.mix if mode == "eager" else torch.compile(one.mix)

    def step():
        if not backward:
            with torch.no_grad():
                return mix(x, cos, sin, mask)
        x.grad = None
        one.zero_grad(set_to_none=True)
        mix(x, cos, sin, mask).backward(grad)

    row = timed(step, a.repetitions, 2, a.seconds)
    peak = torch.cuda.max_memory_allocated() if a.device == "cuda" else 0
    return {**row, "seq_len": a.seq_len, "batch": B, "tokens_per_s": 1000 * B * a.seq_len / row["median_ms"], "peak_bytes": peak}


@torch.inference_mode()
def decode(a, mode, dtype):
    torch.manual_seed(1)
    model = Model(a)
    kind = torch.float32 if dtype == "f32" else torch.bfloat16
    model = model.to(kind)
    H, P, C, N = a.heads, a.d_model // a.heads, a.seq_len // a.chunk + 4, a.layers
    ends, states = torch.randn(N, 2, H, C, P).to(kind), torch.randn(N, 2, a.d_model).to(kind)
    all_cos, all_sin = rope_tables(torch.arange(C), P)
    seen = torch.zeros(C).masked_fill(torch.arange(C) >= a.seq_len // a.chunk, -math.inf).to(kind)
    step = model.step if mode == "eager" else torch.compile(model.step)
    position, token = a.seq_len, torch.tensor(1)
    one, zero = torch.ones((), dtype=kind), torch.zeros((), dtype=kind)

    def once():
        nonlocal position, states, token
        chunk = position // a.chunk % C
        used = slice(a.seq_len // a.chunk) if mode == "eager" else slice(None)
        keep = zero if position % a.chunk == 0 else one
        logits, states, new = step(token, states, ends[:, :, :, used], seen[used], keep, all_cos[chunk], all_sin[chunk])
        if position % a.chunk == a.chunk - 1:
            ends[:, :, :, -1] = new[:, :, :, 0]
        token = logits.argmax()
        position += 1

    row = timed(once, 50 * a.repetitions, 50, a.seconds)
    return {**row, "seq_len": a.seq_len, "batch": 1, "tokens_per_s": 1000 / row["median_ms"]}


def check():
    """The layer against the step-by-step definition, and both scans against each other, in double precision."""
    a = argparse.Namespace(d_model=32, heads=4, groups=2, chunk=4, layers=2, vocab=17, scan="loop", attention="plain")
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    model, T = Model(a).double(), 16
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)  # large enough that every part matters to the loss
    tokens = torch.randint(17, (1, T + 1))
    cos, sin, mask = chunk_tables(a, T)
    losses = []
    for a.scan in ("loop", "doubling"):
        losses.append(model(tokens[:, :-1], tokens[:, 1:], cos, sin, mask).item())
    P, C = 8, T // 4
    ends, states, total = torch.zeros(2, 2, 4, C, P), torch.zeros(2, 2, 32), 0.0
    for t in range(T):
        c = t // 4
        seen = torch.zeros(C).masked_fill(torch.arange(C) >= c, -math.inf)
        logits, states, new = model.step(tokens[0, t], states, ends, seen, torch.tensor(float(t % 4 > 0)), cos[c], sin[c])
        if t % 4 == 3:
            ends[:, :, :, c] = new[:, :, :, 0]
        total += F.cross_entropy(logits, tokens[0, t + 1]).item() / T
    worst = max(abs(losses[0] - losses[1]), abs(losses[0] - total))
    print(f"loss {total:.6f}: scans and decoding agree within {worst:.2e}")
    return 0 if worst < 1e-9 else 1


def check_flex():
    """On a GPU: loss and gradients of FlexAttention with the associative scan against the plain model, in f32."""
    torch.set_default_device("cuda")
    a = argparse.Namespace(d_model=64, heads=4, groups=2, chunk=4, layers=2, vocab=17, scan="loop", attention="plain")
    torch.manual_seed(0)
    model, T, results = Model(a), 256, []
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    tokens = torch.randint(17, (2, T + 1))
    for a.scan, a.attention in (("loop", "plain"), ("associative", "flex")):
        model.zero_grad()
        run = torch.compile(model) if a.attention == "flex" else model
        loss = run(tokens[:, :-1], tokens[:, 1:], *chunk_tables(a, T))
        loss.backward()
        results.append((loss.item(), torch.cat([p.grad.flatten() for p in model.parameters()])))
    (loss, grad), (flex_loss, flex_grad) = results
    error = ((grad - flex_grad).norm() / grad.norm()).item()
    print(f"loss {loss:.6f}, flex {flex_loss:.6f}; gradients differ by {error:.1e}")
    return 0 if abs(loss - flex_loss) < 1e-3 and error < 1e-2 else 1  # products of FlexAttention are in tf32


TIMED = {"train": train, "decode": decode, "layer-train": lambda *a: layer(*a, True), "layer-prefill": lambda *a: layer(*a, False)}


def main():
    parser = argparse.ArgumentParser()
    for name, value in dict(seq_len=512, tokens=8192, d_model=256, heads=4, groups=2, layers=4, vocab=256, chunk=16, repetitions=20, threads=2).items():
        parser.add_argument("--" + name.replace("_", "-"), type=int, default=value)
    parser.add_argument("--seconds", type=float, default=10, help="stop repeating after so long (but after 5 at least)")
    parser.add_argument("--mode", default="eager,compile")
    parser.add_argument("--dtype", default="f32,bf16-autocast,bf16-pure")
    parser.add_argument("--what", default="train,decode")
    parser.add_argument("--scan", default="loop")
    parser.add_argument("--attention", default="plain", choices=["plain", "flex"])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--check", action="store_true")
    a = parser.parse_args()
    if a.check:
        return check_flex() if a.device == "cuda" else check()
    torch.set_num_threads(a.threads)
    torch.set_default_device(a.device)
    rows, scans = [], a.scan.split(",")
    for what in a.what.split(","):
        for dtype in a.dtype.split(","):
            if what != "train" and dtype == "bf16-autocast":
                continue  # nothing to keep in f32 without an optimizer
            for mode in a.mode.split(","):
                for a.scan in scans if what != "decode" else scans[:1]:
                    torch._dynamo.reset()
                    row = TIMED[what](a, mode, dtype)
                    rows.append({"what": what, "mode": mode, "dtype": dtype, "scan": a.scan, "attention": a.attention,
                                 "torch": torch.__version__, **row})
                    print(json.dumps(rows[-1]), file=sys.stderr)
    print(json.dumps(rows, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
