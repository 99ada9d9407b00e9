# The rank's side of processes of PyTorch that runners.ts starts: takes a line of JSON for each run on its standard input and answers with
# one. "cuda" or "cpu" is the program's first argument. Knows not what is run.
import json
import os
import sys
import traceback

import torch
import torch.distributed as dist
import transformers

rank, ranks = int(os.environ["TANDEM_RANK"]), int(os.environ["TANDEM_WORLD_SIZE"])
cuda = sys.argv[1] == "cuda"
# As our own ranks have them: where there are fewer GPUs than ranks, several share one.
device = torch.device("cuda", rank % max(1, torch.cuda.device_count())) if cuda else torch.device("cpu")


def synchronize():
    if cuda:
        torch.cuda.synchronize()


def versions():
    nccl = {"nccl": ".".join(map(str, torch.cuda.nccl.version()))} if cuda else {}
    return {"torch": torch.__version__, "transformers": transformers.__version__, **nccl}


def serve(run):
    """Until standard input ends. `run` is given a line's fields; what it raises is an answer too."""
    # Answers leave on the real standard output; whatever a library prints goes to standard error.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    os.environ["RANK"], os.environ["WORLD_SIZE"] = str(rank), str(ranks)
    torch.backends.cuda.matmul.allow_tf32 = False
    if cuda:
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(1)
    dist.init_process_group("nccl" if cuda else "gloo", init_method="env://")
    if rank == 0:
        print(", ".join(f"{name} {version}" for name, version in versions().items()), file=sys.stderr)
    for line in sys.stdin:
        try:
            answer = run(**json.loads(line))
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps({"answer": answer}), file=answers, flush=True)
        if cuda:
            torch.cuda.empty_cache()
    # Skip what an interpreter does at its end: wrapped models would outlive their process group.
    answers.flush()
    os._exit(0)
