"""RAT Workbench beside PyTorch: the same model, the same machine, the same run, one after the other in turn.

Usage: python3 tests/peers/compare.py --rat PATH/TO/rat [--python PYTHON_WITH_TORCH] [--seq-len 512,4096] [--json OUT]
Prints one Markdown table; takes about seven minutes on two quiet cores, most of it torch.compile. For each T: ours, every mode of the peer, and
ours again, so that a machine that became slower or faster meanwhile shows as a spread of our own two numbers.
"""
import argparse, json, os, pathlib, platform, subprocess, sys

PEER = pathlib.Path(__file__).with_name("torch_rat.py")
# Autocast keeps f32 master weights, as ours does; decoding needs none. (Training wholly in bf16 was slower: see docs.)
# Each of our dtypes beside the peer's of the same accuracy: bf16x6 meets the bounds of f32 (`rat verify --dtype bf16x6`).
PEER_DTYPE = {"f32": "f32", "bf16x6": "f32", "bf16": "bf16"}
PEER_RUNS = [(what, mode, dtype) for what, dtypes in (("train", ("f32", "bf16-autocast")), ("decode", ("f32", "bf16-pure")))
             for dtype in dtypes for mode in ("eager", "compile")]


def run(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


def supported(a, dtype):
    """Whether this CPU multiplies in dtype; where not, rat says why, and so does this."""
    probe = subprocess.run([a.rat, "bench", "layer", "--kind", "rat", "--chunk", "16", "--d-model", "64", "--heads", "2", "--seq-len",
                            "64", "--tokens", "64", "--dtype", dtype, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if probe.returncode:
        print(f"left out: {probe.stderr.strip()}", file=sys.stderr, flush=True)
    return probe.returncode == 0


def ours(a, T, dtype):
    command = [a.rat, "bench", "model", "--layers", "rat:16*4", "--d-model", "256", "--heads", "4", "--vocab", "256"]
    rows = run(command + ["--seq-len", str(T), "--tokens", str(a.tokens), "--dtype", dtype, "--json"])
    decode = run([a.rat, "bench", "decode", "--layers", "rat:16*4", "--d-model", "256", "--heads", "4", "--vocab", "256",
                  "--seq-len", str(T), "--batch", "1", "--dtype", dtype, "--json"])
    rows = [row for row in rows if row["what"] == "train"] + [row for row in decode if row["what"] == "decode"]
    return [{**row, "who": "ours", "mode": "-"} for row in rows]


def peer(a, T, what, mode, dtype):
    command = [a.python, str(PEER), "--seq-len", str(T), "--tokens", str(a.tokens), "--what", what, "--mode", mode,
               "--dtype", dtype, "--seconds", str(a.seconds)]
    return [{**row, "who": "PyTorch", "mode": f"{mode}, {row['dtype']}", "dtype": dtype[:4].rstrip("-")} for row in run(command)]


def cell(row):
    if row["what"] == "train":
        return f"{row['tokens_per_s']:,.0f} tok/s ({row['q1_ms']:.0f}–{row['q3_ms']:.0f} ms)"
    return f"{row['median_ms']:.3f} ms ({row['q1_ms']:.3f}–{row['q3_ms']:.3f})"


def best(rows):  # the shortest median per token
    return max(rows, key=lambda row: row["tokens_per_s"])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rat", required=True)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--seq-len", default="512,4096")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--json")
    a = parser.parse_args()
    rows, dtypes = [], [dtype for dtype in PEER_DTYPE if supported(a, dtype)]
    for T in map(int, a.seq_len.split(",")):
        def note(new):
            for row in new:
                row["seq_len"] = T
                print(f"T {T} {row['who']} {row['what']} {row['dtype']} {row['mode']}: {cell(row)}", file=sys.stderr, flush=True)
            rows.extend(new)
        for dtype in dtypes:
            note(ours(a, T, dtype))
        for what, mode, dtype in PEER_RUNS:
            note(peer(a, T, what, mode, dtype))
        for dtype in dtypes:
            note(ours(a, T, dtype))
    version = next(row["torch"] for row in rows if row["who"] == "PyTorch")
    print(f"PyTorch {version}, {os.cpu_count()} cores, {platform.machine()}, {a.tokens} tokens a step, median (quartiles)\n")
    print("| what | T | dtype | ours, before | ours, after | PyTorch, best mode | mode | times faster |\n|---|---|---|---|---|---|---|---|")
    for what in ("train", "decode"):
        for T in sorted({row["seq_len"] for row in rows}):
            for dtype in dtypes:
                peer_dtype = PEER_DTYPE[dtype]
                of = lambda who, dtype: [r for r in rows if (r["who"], r["what"], r["seq_len"], r["dtype"]) == (who, what, T, dtype)]
                before, after = of("ours", dtype)
                other = best(of("PyTorch", peer_dtype))
                ratio = min(before["tokens_per_s"], after["tokens_per_s"]) / other["tokens_per_s"]  # our worse one
                print(f"| {what} | {T} | {dtype} | {cell(before)} | {cell(after)} | {cell(other)} | {other['mode']} | {ratio:.2f} |")
    if a.json:
        pathlib.Path(a.json).write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
