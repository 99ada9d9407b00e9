# The same training as bench/native/loss-curve.ts in PyTorch, from the same weights on the same batches: Hugging Face's GPT-2, AdamW with
# float32 weights, bf16 autocast and once more in float32 throughout. Tells how far the three curves lie apart.
#   python3 bench/native/torch-loss.py curve
import json
import sys

import numpy
import torch
from torch_gpt2 import first_model, loss_of, tokens_of, windows

folder = sys.argv[1]
ours = json.load(open(f"{folder}/losses.json"))
batch, context, layers, steps, seed = (ours[name] for name in ("batch", "context", "layers", "steps", "seed"))
text = tokens_of(f"{folder}/text.bin", "cuda")


def train(autocast):
    model = first_model(folder, "cuda", n_layer=layers, n_positions=context)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1, fused=True)
    losses = []
    for step in range(steps):
        tokens = windows(text, seed, 0, step, batch, context)
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=autocast):
            loss = loss_of(model, tokens)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.detach())
    return torch.stack(losses).float().cpu().numpy()


torch.backends.cuda.matmul.allow_tf32 = False
curves = {"ours": numpy.array(ours["losses"]), "bf16": train(True), "float32": train(False)}
json.dump({name: curve.tolist() for name, curve in curves.items()}, open(f"{folder}/curves.json", "w"))
for step in [s for s in (1, 10, 50, 100, 200, 300, 400, steps) if s <= steps]:
    print(f"step {step}: " + ", ".join(f"{name} {curve[step - 1]:.4f}" for name, curve in curves.items()))
for one, other in (("ours", "bf16"), ("bf16", "float32"), ("ours", "float32")):
    apart = numpy.abs(curves[one] - curves[other])
    print(f"{one} - {other}: mean |difference| {apart.mean():.4f}, of the last 50 {apart[-50:].mean():.4f}, largest {apart.max():.4f}; "
          f"mean of the last 50: {curves[one][-50:].mean():.4f}, {curves[other][-50:].mean():.4f}")
