# Decoding with offloaded experts as a plain PyTorch loop does it: an LRU of slots for each layer, experts in pinned host memory, one
# stream for copies, a copy begun when the layer's choices are known. The layers, the routes and the slots are those of a run of
# bench/native/offload.ts, whose file this reads; weights are random, for time does not depend on them. What the router chooses is waited
# for as a model must, and then the recorded choice is taken.
#   python3 bench/native/torch-offload.py offload/offload.json             --device cpu where there is no GPU
# Without a run: layers as Mixtral 8x7B has them, drawn routes and 32 cached positions; every step timed with each number of slots, and
# with some once more, the last steps under the profiler, between two times of the same steps without it. Writes loop.json and
# loop-<slots>.pt.trace.json.gz.
#   python3 bench/native/torch-offload.py --slots 8,7,6,5,4,3,8 --trace 8,7,4 --out offload-loop
import argparse
import json
import os
import random
import statistics
import time

import torch

parser = argparse.ArgumentParser()
parser.add_argument("run", nargs="?")
parser.add_argument("--device", default="cuda")
parser.add_argument("--slots", default="8,7,6,5,4,3,8")
parser.add_argument("--trace", default="8,7,4")
parser.add_argument("--layers", type=int, default=4)
parser.add_argument("--width", type=int, default=4096)
parser.add_argument("--ffn", type=int, default=14336)
parser.add_argument("--tokens", type=int, default=96)
parser.add_argument("--out", default="offload-loop")
arguments = parser.parse_args()
warmup_profiled, profiled = 2, 10
cached = 32
if arguments.run is None:
    model = {"layers": arguments.layers, "experts": 8, "topK": 2, "width": arguments.width, "ffnWidth": arguments.ffn,
             "vocabulary": 32000, "heads": 32, "kvHeads": 8, "dtype": "bfloat16"}
    draw = random.Random(1)
    steps = [[draw.sample(range(8), 2) for _ in range(arguments.layers)]
             for _ in range(arguments.tokens + warmup_profiled + profiled)]
    run = {"slotsPerLayer": 0}
    context = cached + len(steps)
else:
    run = json.load(open(arguments.run))
    model, steps = run["model"], run["choices"]
    context = sum(len(step[0]) // model["topK"] for step in steps)
layers, experts, top_k = model["layers"], model["experts"], model["topK"]
width, ffn, vocabulary = model["width"], model["ffnWidth"], model["vocabulary"]
heads, kv_heads = model["heads"], model["kvHeads"]
head_width = model.get("headWidth", width // heads)
dtype = getattr(torch, model["dtype"])
cuda = arguments.device == "cuda"
torch.manual_seed(1)
torch.set_grad_enabled(False)


def weight(*shape):
    return torch.empty(*shape, device=arguments.device, dtype=dtype).normal_(0, 0.02)


def on_host(*shape):
    kept = torch.empty(*shape, dtype=dtype, pin_memory=cuda)
    kept.copy_(weight(*shape))
    return kept


class Layer:
    def __init__(self):
        q, kv = heads * head_width, kv_heads * head_width
        self.q, self.k, self.v, self.o = weight(q, width), weight(kv, width), weight(kv, width), weight(width, q)
        self.router = weight(experts, width)
        self.norms = [torch.ones(width, device=arguments.device, dtype=dtype) for _ in range(2)]
        self.cache = torch.zeros(2, kv_heads, context, head_width, device=arguments.device, dtype=dtype)
        self.experts = [on_host(3 * ffn, width) for _ in range(experts)]
        self.hold(run["slotsPerLayer"])

    def hold(self, slots):
        self.cache.zero_()
        self.slots = [torch.empty(3 * ffn, width, device=arguments.device, dtype=dtype) for _ in range(slots)]
        # the expert in each slot, and from the one used longest ago to the one used last
        self.held, self.order = [None] * slots, list(range(slots))
        self.used = [torch.cuda.Event() if cuda else None for _ in range(slots)]


stack = [Layer() for _ in range(layers)]
embedding, head = weight(vocabulary, width), weight(vocabulary, width)
last_norm = torch.ones(width, device=arguments.device, dtype=dtype)
copies = torch.cuda.Stream() if cuda else None
loads = 0


def norm(x, scale):
    return x * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-5).to(dtype) * scale


def rotate(x, position):
    half = x.shape[-1] // 2
    rates = 1e6 ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angles = (position + torch.arange(x.shape[1], device=x.device))[:, None] * rates
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    low, high = x[..., :half], x[..., half:]
    return torch.cat([low * cos - high * sin, high * cos + low * sin], dim=-1)


def attend(layer, x, position):
    count = x.shape[0]
    q, k, v = ((x @ w.T).view(count, -1, head_width).transpose(0, 1) for w in (layer.q, layer.k, layer.v))
    q, k = rotate(q, position), rotate(k, position)
    end = position + count
    layer.cache[0, :, position:end], layer.cache[1, :, position:end] = k, v
    keys, values = (part[:, :end].repeat_interleave(heads // kv_heads, 0) for part in layer.cache)
    if hasattr(torch.nn.functional, "scaled_dot_product_attention"):
        mixed = torch.nn.functional.scaled_dot_product_attention(q[None], keys[None], values[None], is_causal=count > 1)[0]
    else:
        scores = (q @ keys.transpose(1, 2)).float() / head_width**0.5
        seen = torch.ones(count, end, device=x.device).tril(position) > 0
        mixed = scores.masked_fill(~seen, float("-inf")).softmax(-1).to(dtype) @ values
    return mixed.transpose(0, 1).reshape(count, -1) @ layer.o.T


def slot_of(layer, expert, needed):
    """The slot that holds the expert; with a copy on its way where none did."""
    global loads
    if expert in layer.held:
        slot = layer.held.index(expert)
    else:
        loads += 1
        free = [s for s in layer.order if layer.held[s] is None] or [s for s in layer.order if layer.held[s] not in needed]
        slot = (free or layer.order)[0]
        layer.held[slot] = expert
        if cuda:
            copies.wait_event(layer.used[slot])
            with torch.cuda.stream(copies):
                layer.slots[slot].copy_(layer.experts[expert], non_blocking=True)
                copied = torch.cuda.Event()
                copied.record(copies)
            torch.cuda.current_stream().wait_event(copied)
        else:
            layer.slots[slot].copy_(layer.experts[expert])
    layer.order.remove(slot)
    layer.order.append(slot)
    return slot


def mixture(layer, x, recorded):
    probabilities = (x @ layer.router.T).float().softmax(-1)
    shares = probabilities.topk(top_k, -1).values
    shares = (shares / shares.sum(-1, keepdim=True)).to(dtype)
    probabilities.argmax(-1).tolist()
    needed = sorted(set(recorded))
    out = torch.zeros_like(x)
    # those that are there first, as our own policies have them
    for expert in sorted(needed, key=lambda e: e not in layer.held):
        slot = slot_of(layer, expert, needed)
        at = [i for i, chosen in enumerate(recorded) if chosen == expert]
        tokens, choices = [i // top_k for i in at], [i % top_k for i in at]
        one = x.shape[0] == 1
        rows = x if one else x[tokens]
        up, down = layer.slots[slot][: 2 * ffn], layer.slots[slot][2 * ffn :].view(width, ffn)
        gate, value = (rows @ up.T).chunk(2, -1)
        result = (torch.nn.functional.silu(gate) * value) @ down.T
        if one:
            out += result * shares[0, choices[0]]
        else:
            out[tokens] += result * shares[tokens, choices][:, None]
        if cuda:
            layer.used[slot].record()
    return out


def step(tokens, position, recorded):
    x = embedding[tokens]
    for layer, chosen in zip(stack, recorded):
        x = x + attend(layer, norm(x, layer.norms[0]), position)
        x = x + mixture(layer, norm(x, layer.norms[1]), chosen)
    return (norm(x[-1:], last_norm) @ head.T).argmax(-1)


def synchronize():
    if cuda:
        torch.cuda.synchronize()



def decode_with(slots, profiled_into=None):
    """Seconds of every step, and its loads; the last steps under the profiler where a path is given."""
    for layer in stack:
        layer.hold(slots)
    synchronize()
    token = torch.zeros(1, device=arguments.device, dtype=torch.long)
    seconds, counts = [], []

    def one(index):
        nonlocal token
        began, before = time.perf_counter(), loads
        token = step(token, cached + index, steps[index])
        # a token is told as it comes
        token.tolist()
        seconds.append(time.perf_counter() - began)
        counts.append(loads - before)

    if profiled_into is None:
        for index in range(len(steps)):
            one(index)
        return seconds, counts
    from torch.profiler import ProfilerActivity, profile, schedule

    for index in range(arguments.tokens):
        one(index)
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if cuda else [])
    with profile(activities=activities, schedule=schedule(wait=0, warmup=warmup_profiled, active=profiled, repeat=1),
                 on_trace_ready=lambda p: p.export_chrome_trace(profiled_into)) as p:
        for index in range(arguments.tokens, len(steps)):
            one(index)
            p.step()
    return seconds, counts


def copy_seconds():
    layer = stack[0]
    synchronize()
    taken = []
    for _ in range(5):
        began = time.perf_counter()
        layer.slots[0].copy_(layer.experts[0], non_blocking=True)
        synchronize()
        taken.append(time.perf_counter() - began)
    return statistics.mean(taken[1:])


def loop():
    os.makedirs(arguments.out, exist_ok=True)
    counts = [int(count) for count in arguments.slots.split(",")]
    traced = [int(count) for count in arguments.trace.split(",") if count]
    first, last = arguments.tokens // 4, arguments.tokens
    # Every length once before anything is timed: attention of cuDNN plans for each anew.
    decode_with(counts[0])
    rows = []

    def run_with(slots):
        seconds, loaded = decode_with(slots)
        row = {"slots": slots, "mean_step_seconds": statistics.mean(seconds[first:last]),
               "median_step_seconds": statistics.median(seconds[first:last]), "loads": sum(loaded[:last]),
               "loads_per_step": statistics.mean(loaded[first:last]),
               "traced_steps_seconds": statistics.mean(seconds[-profiled:]), "traced_steps_loads": statistics.mean(loaded[-profiled:])}
        print(json.dumps(row), flush=True)
        rows.append({**row, "seconds": seconds[:last], "loads_of_steps": loaded[:last]})

    for slots in counts:
        run_with(slots)
        if slots in traced:
            traced.remove(slots)
            decode_with(slots, os.path.join(arguments.out, f"loop-{slots}.pt.trace.json.gz"))
            # the same steps once more: a host's pace changes
            run_with(slots)
    kept = {"torch": torch.__version__, "device": torch.cuda.get_device_name() if cuda else "cpu", "model": model,
            "warmup": first, "copy": {"bytes": 3 * ffn * width * 2, "seconds": copy_seconds()}, "runs": rows, "tokens": steps}
    print(json.dumps({key: kept[key] for key in ("torch", "device", "copy")}))
    with open(os.path.join(arguments.out, "loop.json"), "w") as file:
        json.dump(kept, file)


if arguments.run is None:
    loop()
    raise SystemExit(0)


position, token = 0, None
measured_from = 1 + run["warmupSteps"]
for index, recorded in enumerate(steps):
    count = len(recorded[0]) // top_k
    tokens = torch.arange(count, device=arguments.device) % vocabulary if token is None else token
    if index == measured_from:
        synchronize()
        began, before = time.perf_counter(), loads
    token = step(tokens, position, recorded)
    # a token is told as it comes
    token.tolist()
    position += count
synchronize()
seconds = (time.perf_counter() - began) / (len(steps) - measured_from)
print(json.dumps({"torch": torch.__version__, "device": torch.cuda.get_device_name() if cuda else "cpu",
                  "tokensPerSecond": 1 / seconds, "decodeStepSeconds": seconds, "loads": loads,
                  "loadsPerStep": (loads - before) / (len(steps) - measured_from)}))
