"""The layers that ours is measured against, in PyTorch on one NVIDIA GPU: softmax attention through
scaled_dot_product_attention, forward, forward and backward, and one decoding step replayed as a CUDA graph.

Usage: python3 torch_gpu.py [--seq-len T]... [--json FILE]   (bf16, random data, medians of >= 20 repetitions)
The layer is the one of `rat bench`: RMSNorm, one projection to v, q, k, RoPE, causal attention, output projection,
residual; norm and RoPE are compiled. Weight gradients in bf16, as PyTorch makes them.
"""
import argparse
import json
import torch
import torch.nn.functional as F

D, H, TOKENS = 2048, 16, 262144
P = D // H


def rms_norm(x, weight):
    y = x.float()
    return (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6) * weight).to(x.dtype)


def rope(x, cos, sin):  # (B, H, T, P)
    low, high = x[..., : P // 2], x[..., P // 2:]
    return torch.cat([low * cos - high * sin, high * cos + low * sin], -1).to(x.dtype)


def tables(positions):
    angles = positions[:, None] * 10000.0 ** (-torch.arange(0, P, 2, device="cuda") / P)
    return angles.cos(), angles.sin()


def attention_layer(x, norm, in_proj, out_proj, cos, sin):
    B, T, _ = x.shape
    v, q, k = (rms_norm(x, norm) @ in_proj.T).split(D, -1)
    q, k, v = (t.view(B, T, H, P).transpose(1, 2) for t in (q, k, v))
    y = F.scaled_dot_product_attention(rope(q, cos, sin), rope(k, cos, sin), v, is_causal=True)
    return torch.addmm(x.reshape(B * T, D), y.transpose(1, 2).reshape(B * T, D), out_proj.T).view(B, T, D)


def measure(work, reps=20):
    for _ in range(3):
        work()
    torch.cuda.synchronize()
    times = []
    for _ in range(reps):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        work()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    times.sort()
    n = len(times)
    return times[n // 2], times[n // 4], times[3 * n // 4]


def weights():
    make = lambda *s: (torch.randn(*s, device="cuda") * D ** -0.5).bfloat16().requires_grad_(True)
    return torch.ones(D, device="cuda").requires_grad_(True), make(3 * D, D), make(D, D)


def report(rows, what, T, B, times, tokens):
    row = dict(what=what, kind="attention", chunk=None, seq_len=T, batch=B, d_model=D, heads=H, dtype="bf16",
               device="cuda", stack=f"torch {torch.__version__} SDPA", median_ms=times[0], q1_ms=times[1], q3_ms=times[2],
               tokens_per_s=tokens / times[0] * 1e3, peak_bytes=torch.cuda.max_memory_allocated())
    rows.append(row)
    print(f"peer attention {what:8s} T={T:<7d} B={B:<4d} {times[0]:9.3f} ms ({times[1]:.3f} .. {times[2]:.3f}) "
          f"{row['peak_bytes'] / 2**30:.2f} GiB", flush=True)


def layer_rows(rows, T, compiled):
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    B = max(1, TOKENS // T)
    x = torch.randn(B, T, D, device="cuda", dtype=torch.bfloat16)
    grad = torch.randn_like(x)
    w = weights()
    cos, sin = tables(torch.arange(T, device="cuda"))
    with torch.no_grad():
        report(rows, "prefill", T, B, measure(lambda: compiled(x, *w, cos, sin)), B * T)
    torch.cuda.reset_peak_memory_stats()
    x.requires_grad_(True)

    def step():
        for t in (x, *w):
            t.grad = None
        compiled(x, *w, cos, sin).backward(grad)
    report(rows, "train", T, B, measure(step, 20 if T <= 32768 else 20), B * T)


def decode_rows(rows, T, B):
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    norm, in_proj, out_proj = (t.detach() for t in weights())
    keys, values = (torch.randn(B, H, T, P, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    x = torch.randn(B, D, device="cuda", dtype=torch.bfloat16)
    cos, sin = tables(torch.tensor([T - 1.0], device="cuda"))

    def step():
        v, q, k = (rms_norm(x, norm) @ in_proj.T).split(D, -1)
        q, k = rope(q.view(B, H, 1, P), cos, sin), rope(k.view(B, H, 1, P), cos, sin)
        keys[:, :, T - 1] = k[:, :, 0]
        values[:, :, T - 1] = v.view(B, H, P)
        y = F.scaled_dot_product_attention(q, keys, values)
        return torch.addmm(x, y.reshape(B, D), out_proj.T)
    with torch.no_grad():
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(3):
                step()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        report(rows, "decode", T, B, measure(graph.replay, 50), B)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seq-len", type=int, action="append")
    parser.add_argument("--no-decode", action="store_true")
    parser.add_argument("--eager", action="store_true", help="do not compile norm and RoPE")
    parser.add_argument("--json")
    args = parser.parse_args()
    rows = []
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name()}, cuDNN {torch.backends.cudnn.version()}", flush=True)
    for T in args.seq_len or [4096, 131072]:
        torch._dynamo.reset()
        compiled = attention_layer if args.eager else torch.compile(attention_layer, dynamic=False)
        layer_rows(rows, T, compiled)
    if not args.no_decode:
        for T, B in ((4096, 512), (4096, 64)):
            decode_rows(rows, T, B)
    if args.json:
        with open(args.json, "w") as out:
            json.dump(rows, out, indent=1)


if __name__ == "__main__":
    main()
