# A training step of GPT-2 124M in PyTorch as people run it: Hugging Face's model, bf16 autocast, float32 master weights, fused AdamW,
# eager or torch.compile, the loss compiled with the model. Beside bench/native/train-step.ts.
#   python3 bench/native/torch-step.py --batch 4 --vocabulary 50257
#   python3 bench/native/torch-step.py --eager --trace eager.pt.trace.json.gz   # and two steps as torch.profiler exports them
import argparse

import torch
from transformers import GPT2Config, GPT2LMHeadModel

parser = argparse.ArgumentParser()
parser.add_argument("--batch", type=int, default=4)
parser.add_argument("--vocabulary", type=int, default=50257)
parser.add_argument("--eager", action="store_true")
parser.add_argument("--trace")
arguments = parser.parse_args()

torch.manual_seed(1)
torch.set_float32_matmul_precision("high")
config = GPT2Config(vocab_size=arguments.vocabulary, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False)
model = GPT2LMHeadModel(config).cuda().train()
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=0.1, fused=True)
tokens = torch.randint(0, 50257, (arguments.batch, 1025), device="cuda")


def loss_of(inputs, targets):
    with torch.autocast("cuda", dtype=torch.bfloat16):
        logits = model(input_ids=inputs).logits
        return torch.nn.functional.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))


run = loss_of if arguments.eager else torch.compile(loss_of)


def step():
    loss = run(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss


for _ in range(10):
    step()
times = []
for _ in range(30):
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    step()
    end.record()
    torch.cuda.synchronize()
    times.append(start.elapsed_time(end))
name = "eager" if arguments.eager else "torch.compile"
peak = torch.cuda.max_memory_allocated() / 1e9
print(f"torch {torch.__version__} {name}, batch {arguments.batch} x 1024, vocabulary {arguments.vocabulary}: "
      f"{sorted(times)[len(times) // 2]:.2f} ms a step, {peak:.1f} GB")
if arguments.trace:
    from torch.profiler import ProfilerActivity, profile, schedule

    with profile(
        activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA],
        schedule=schedule(wait=1, warmup=3, active=2),
        record_shapes=True,
        with_stack=True,
        with_modules=True,
        on_trace_ready=lambda profiler: profiler.export_chrome_trace(arguments.trace),
    ) as profiler:
        for _ in range(6):
            step()
            torch.cuda.synchronize()
            profiler.step()
