# Hugging Face's GPT-2 with given first weights, on the batches that token_windows draws (core/kernels/token-windows.ts): what torch-loss.py
# and bench/cluster/torch-ddp.py train. The files are those of for-torch.ts.
import numpy
import torch
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel


def tokens_of(file, device):
    return torch.from_numpy(numpy.fromfile(file, dtype=numpy.int32)).long().to(device)


def mix(word):
    word &= 0xFFFFFFFF
    h = word ^ (word >> 16)
    h = h * 0x85EBCA6B & 0xFFFFFFFF
    h ^= h >> 13
    h = h * 0xC2B2AE35 & 0xFFFFFFFF
    return h ^ (h >> 16)


def windows(text, seed, stream, step, batch, context):
    """Tokens and the one after them, [batch, context + 1]; a stream is a rank's, -1 that of held-out batches."""
    places = len(text) - context
    begins = [mix(mix(mix(mix(seed) + stream) + step) + index) % places for index in range(batch)]
    return torch.stack([text[begin : begin + context + 1] for begin in begins])


def loss_of(model, tokens):
    logits = model(input_ids=tokens[:, :-1]).logits
    return torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), tokens[:, 1:].reshape(-1))


def first_model(folder, device, **sizes):
    """Without dropout; parameters are those of first.safetensors, rows that pad a table left out."""
    first = load_file(f"{folder}/first.safetensors")
    config = GPT2Config(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False, **sizes)
    model = GPT2LMHeadModel(config).to(device).train()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            value = first[name].to(device)
            if "attn.c_" in name or "mlp.c_" in name:
                value = value.T if value.dim() == 2 else value
            parameter.copy_(value[: parameter.shape[0]])
    return model
