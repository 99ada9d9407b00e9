# The same training as bench/native/loss-curve.ts in PyTorch, from the same weights on the same batches: Hugging Face's GPT-2, AdamW with
# float32 weights, bf16 autocast and once more in float32 throughout. Tells how far the three curves lie apart.
#   python3 bench/native/torch-loss.py curve
import json
import sys

import numpy
import torch
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel

folder = sys.argv[1]
ours = json.load(open(f"{folder}/losses.json"))
batch, context, layers, steps, seed = (ours[name] for name in ("batch", "context", "layers", "steps", "seed"))
text = torch.from_numpy(numpy.fromfile(f"{folder}/text.bin", dtype=numpy.int32)).long().cuda()
first = load_file(f"{folder}/first.safetensors")


def mix(word):
    word &= 0xFFFFFFFF
    h = word ^ (word >> 16)
    h = h * 0x85EBCA6B & 0xFFFFFFFF
    h ^= h >> 13
    h = h * 0xC2B2AE35 & 0xFFFFFFFF
    return h ^ (h >> 16)


def windows(step):
    # core/kernels/token-windows.ts; rank 0's stream
    places = len(text) - context
    begins = [mix(mix(mix(mix(seed) + 0) + step) + index) % places for index in range(batch)]
    return torch.stack([text[begin : begin + context + 1] for begin in begins])


def train(autocast):
    config = GPT2Config(n_layer=layers, n_positions=context, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False)
    model = GPT2LMHeadModel(config).cuda().train()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            value = first[name].cuda()
            if "attn.c_" in name or "mlp.c_" in name:
                value = value.T if value.dim() == 2 else value
            parameter.copy_(value[: parameter.shape[0]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1, fused=True)
    losses = []
    for step in range(steps):
        tokens = windows(step)
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=autocast):
            logits = model(input_ids=tokens[:, :-1]).logits
            loss = torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), tokens[:, 1:].reshape(-1))
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
