# The rule of kvpress's ChunkKVPress over SnapKVPress, as its public code has it, in PyTorch: choose a tenth of a prompt's tokens and compact
# one layer's cache. Beside bench/native/select.ts.
import torch

heads, kv_heads, width, window, chunk, keep = 32, 8, 128, 64, 20, 0.1


def select(q, k, v):
    time = k.shape[2]
    groups = heads // kv_heads
    repeated = k[:, :, None].expand(-1, -1, groups, -1, -1).reshape(1, heads, time, width)
    weights = torch.matmul(q, repeated.transpose(2, 3)) / width**0.5
    mask = torch.full((window, time), float("-inf"), device=q.device, dtype=q.dtype)
    weights = weights + torch.triu(mask, diagonal=time - window + 1)
    weights = torch.softmax(weights, dim=-1, dtype=torch.float32).to(q.dtype)[..., :-window]
    scores = weights.mean(dim=-2)
    scores = torch.nn.functional.avg_pool1d(scores, kernel_size=5, padding=2, stride=1)
    scores = scores.view(1, kv_heads, groups, time - window).mean(2)
    scores = torch.nn.functional.pad(scores, (0, window), value=scores.max().item())
    complete = time // chunk
    main = scores[..., : complete * chunk].sum(dim=1).view(1, complete, chunk).mean(dim=-1)
    rest = scores[..., complete * chunk :].sum(dim=1).mean(dim=-1, keepdim=True)
    if time % chunk:
        main = torch.cat([main, rest], dim=-1)
    kept = max(1, int(main.shape[-1] * keep))
    top = main.topk(kept, dim=-1).indices
    tokens = (top[..., None] * chunk + torch.arange(chunk, device=q.device)).reshape(1, -1)
    tokens = tokens[tokens < time].sort().values
    index = tokens.view(1, 1, -1, 1).expand(1, kv_heads, -1, width)
    return k.gather(2, index).contiguous(), v.gather(2, index).contiguous()


for time in (8192, 32768, 131072):
    q = torch.randn(1, heads, window, width, device="cuda", dtype=torch.bfloat16)
    k, v = (torch.randn(1, kv_heads, time, width, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(5):
        select(q, k, v)
    times = []
    for _ in range(20):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        select(q, k, v)
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    print(f"torch, kvpress's rule, {time} tokens: {sorted(times)[len(times) // 2]:.3f} ms")
    del q, k, v
