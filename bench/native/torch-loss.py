# The same training as bench/native/loss-curve.ts in PyTorch, from the same weights on the same batches: Hugging Face's GPT-2, AdamW with
# float32 weights, under bf16 autocast several times (its sums are added in another order each time) and once in float32 throughout. Tells
# each fifty steps' mean loss, and whether ours lies among PyTorch's: no farther from the mean of its bf16 runs than three times their
# standard deviation or 0.5 % of the loss, whichever is more, which was set before. Exit code 1 where it does not.
#   python3 bench/native/torch-loss.py curve --repeats 3
import argparse
import json
import sys

import numpy
import torch
from torch_gpt2 import first_model, loss_of, tokens_of, windows

options = argparse.ArgumentParser()
options.add_argument("folder")
options.add_argument("--repeats", type=int, default=3)
options.add_argument("--device", default="cuda")
options = options.parse_args()
folder, device = options.folder, options.device
ours = json.load(open(f"{folder}/losses.json"))
batch, context, layers, steps, seed = (ours[name] for name in ("batch", "context", "layers", "steps", "seed"))
rate, warmup = ours["learningRate"], ours["warmupSteps"]
text = tokens_of(f"{folder}/text.bin", device)


def train(autocast):
    model = first_model(folder, device, n_layer=layers, n_positions=context)
    fused = device == "cuda"
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1, fused=fused)
    losses = []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * (step + 1) / warmup if step < warmup else rate
        tokens = windows(text, seed, 0, step, batch, context)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=autocast):
            loss = loss_of(model, tokens)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.detach())
    return torch.stack(losses).float().cpu().numpy()


torch.backends.cuda.matmul.allow_tf32 = False
curves = {"ours": numpy.array(ours["losses"])}
curves |= {f"bf16, run {run + 1}": train(True) for run in range(options.repeats)}
curves["float32"] = train(False)
json.dump({name: curve.tolist() for name, curve in curves.items()}, open(f"{folder}/curves.json", "w"))

apart = 0
for begin in range(0, steps, 50):
    means = {name: curve[begin : begin + 50].mean() for name, curve in curves.items()}
    theirs = numpy.array([mean for name, mean in means.items() if name.startswith("bf16")])
    allowed = max(3 * theirs.std(ddof=1) if len(theirs) > 1 else 0, 0.005 * theirs.mean())
    off = means["ours"] - theirs.mean()
    outside = abs(off) > allowed
    apart += outside
    print(f"steps {begin + 1} to {min(begin + 50, steps)}: " + ", ".join(f"{name} {mean:.4f}" for name, mean in means.items())
          + f"; ours off by {off:+.4f} of {allowed:.4f}{' OUTSIDE' if outside else ''}")
for one, other in (("ours", "bf16, run 1"), ("ours", "float32"), ("bf16, run 1", "float32")):
    between = numpy.abs(curves[one] - curves[other])
    print(f"{one} - {other}: mean |difference| {between.mean():.4f}, of the last 50 {between[-50:].mean():.4f}, largest {between.max():.4f}")
print(f"ours lies among PyTorch's in {-(-steps // 50) - apart} of {-(-steps // 50)} stretches of fifty steps")
sys.exit(1 if apart else 0)
