// Writes a profiler trace as large as asked, in the shape and mix of events that torch.profiler records with stacks and
// shapes: for timing imports. Made up: nothing in it was measured. Usage:
//   npx node bench/import/large-trace.ts out.json [events, default 3300000]
import { closeSync, openSync, writeSync } from "node:fs"
import { wholeNumber } from "../numbers.ts"

const layers = 48
const opsOfLayer = 6
/** Events of one step; see `step`. */
const opFrames = 4

/** Writes steps until there are `events`; answers how many events and bytes there are. */
const writeLargeTrace = (path: string, events: number): { events: number; bytes: number } => {
  const out = openSync(path, "w")
  let buffer = `{"schemaVersion": 1, "deviceProperties": [{"id": 0, "name": "Example GPU"}], "displayTimeUnit": "ms", "traceEvents": [\n`
  let bytes = 0
  let count = 0
  const flush = (): void => {
    bytes += writeSync(out, buffer)
    buffer = ""
  }
  const put = (text: string): void => {
    buffer += count++ === 0 ? text : `,\n${text}`
    if (buffer.length > 1 << 20) flush()
  }
  let id = 0
  let correlation = 0
  let sequence = 0
  let host = 1_000_000
  let device = 1_000_050
  const at = (time: number): string => (5_025_624_000_000 + time).toFixed(3)
  const event = (cat: string, name: string, tid: number, start: number, length: number, args: string): void =>
    put(
      `  {"ph": "X", "cat": "${cat}", "name": "${name}", "pid": 402, "tid": ${tid}, "ts": ${at(start)}, "dur": ${length.toFixed(3)}, "args": {${args}}}`
    )
  const kernel = (name: string, tid: number, start: number, length: number): void => {
    const own = ++correlation
    event(
      "cuda_runtime",
      "cudaLaunchKernel",
      tid,
      start,
      4,
      `"External id": ${id}, "cbid": 211, "correlation": ${own}`
    )
    device = Math.max(device + 1, start + 6)
    put(
      `  {"ph": "X", "cat": "kernel", "name": "void at::native::${name}<128, 4, at::native::gpu_kernel_impl(at::TensorIteratorBase&)>", "pid": 0, "tid": 7, "ts": ${at(device)}, "dur": ${length.toFixed(3)}, "args": {"External id": ${id}, "queued": 0, "device": 0, "context": 1, "stream": 7, "correlation": ${own}, "registers per thread": 32, "shared memory": 0, "blocks per SM": 31.030304, "warps per SM": 186.181824, "grid": [4096, 1, 1], "block": [192, 1, 1], "est. achieved occupancy %": 94}}`
    )
    device += length
    put(
      `  {"ph": "s", "id": ${own}, "pid": 402, "tid": ${tid}, "ts": ${at(start)}, "cat": "ac2g", "name": "ac2g"}`
    )
    put(
      `  {"ph": "f", "id": ${own}, "pid": 0, "tid": 7, "ts": ${at(device)}, "cat": "ac2g", "name": "ac2g", "bp": "e"}`
    )
  }
  let step = 0
  while (count < events) {
    const from = host
    const pending: Array<number> = []
    for (let layer = 0; layer < layers; layer++) {
      const entered = host
      for (let op = 0; op < opsOfLayer; op++) {
        const own = sequence++
        pending.push(own)
        for (let frame = 0; frame < opFrames; frame++) {
          event(
            "python_function",
            `torch/nn/modules/module.py(${1700 + frame}): call_${op}`,
            402,
            host,
            24 - frame,
            `"Python parent id": ${id}, "Python id": ${id + 1}, "Ev Idx": ${id}`
          )
        }
        event(
          "cpu_op",
          `aten::op_${op}`,
          402,
          host + 5,
          12,
          `"External id": ${++id}, "Record function id": 0, "Sequence number": ${own}, "Fwd thread id": 0, "Input Dims": [[4, 1024, 768], [768, 768], []], "Input type": ["float", "float", "Scalar"], "Ev Idx": ${id}`
        )
        event(
          "cpu_op",
          "aten::empty",
          402,
          host + 6,
          2,
          `"External id": ${++id}, "Record function id": 0, "Ev Idx": ${id}`
        )
        kernel(`op_${op}`, 402, host + 9, 11)
        host += 25
      }
      event(
        "python_function",
        `nn.Module: Block_${layer}`,
        402,
        entered - 0.5,
        host - entered,
        `"Python module id": ${layer}, "Python id": ${id}, "Ev Idx": ${id}`
      )
    }
    for (const own of pending.toReversed()) {
      const shared = `"External id": ${++id}, "Record function id": 0, "Sequence number": ${own}, "Fwd thread id": 1, "Ev Idx": ${id}`
      event("cpu_op", "autograd::engine::evaluate_function: OpBackward0", 445, host, 30, shared)
      event("cpu_op", "OpBackward0", 445, host + 1, 20, shared)
      kernel("op_backward", 445, host + 5, 20)
      event(
        "cpu_op",
        "torch::autograd::AccumulateGrad",
        445,
        host + 22,
        5,
        `"External id": ${++id}, "Input Dims": [[768, 768]], "Input type": ["float"], "Ev Idx": ${id}`
      )
      host += 32
    }
    event("user_annotation", "Optimizer.step#AdamW.step", 402, host, 30, `"External id": ${++id}`)
    kernel("multi_tensor_apply_kernel", 402, host + 5, 300)
    host = Math.max(host + 40, device + 10)
    event("user_annotation", `ProfilerStep#${step++}`, 402, from - 1, host - from, `"External id": ${++id}`)
  }
  buffer += "\n]}\n"
  flush()
  closeSync(out)
  return { events: count, bytes }
}

if (process.argv[1] !== undefined && import.meta.url.endsWith(process.argv[1].replace(/^.*\//u, ""))) {
  const [path = "large-trace.json", events = "3300000"] = process.argv.slice(2)
  const { events: written, bytes } = writeLargeTrace(path, wholeNumber("events", events))
  console.log(`${path}: ${written} events, ${(bytes / 1e6).toFixed(0)} MB`)
}
