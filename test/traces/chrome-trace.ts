// Builds small profiler traces by hand, in the shape torch.profiler writes them. Times in microseconds.

type Event = Record<string, unknown>

/** Collects events; every method returns the builder. */
export class ChromeTrace {
  readonly events: Array<Event> = []
  readonly members: Record<string, unknown> = {
    schemaVersion: 1,
    deviceProperties: [{ id: 0, name: "Test GPU" }],
    displayTimeUnit: "ms"
  }
  #correlation = 100

  push(event: Event): this {
    this.events.push(event)
    return this
  }

  host(cat: string, name: string, ts: number, dur: number, args: Event = {}, tid = 1): this {
    return this.push({ ph: "X", cat, name, pid: 10, tid, ts, dur, args })
  }

  module(name: string, ts: number, dur: number, tid = 1): this {
    return this.host("python_function", `nn.Module: ${name}`, ts, dur, {}, tid)
  }

  op(name: string, ts: number, dur: number, args: Event = {}, tid = 1): this {
    return this.host("cpu_op", name, ts, dur, args, tid)
  }

  /** A launch on the host at `at` and its kernel on the device from `ts`. */
  kernel(name: string, at: number, ts: number, dur: number, tid = 1, args: Event = {}): this {
    const correlation = this.#correlation++
    this.host("cuda_runtime", "cudaLaunchKernel", at, 0.5, { correlation }, tid)
    return this.device(name, ts, dur, { correlation, ...args })
  }

  device(name: string, ts: number, dur: number, args: Event = {}): this {
    return this.push({
      ph: "X",
      cat: "kernel",
      name,
      pid: 0,
      tid: 7,
      ts,
      dur,
      args: { device: 0, stream: 7, ...args }
    })
  }

  /** An autograd node on the autograd thread (2), with its own op inside. */
  node(name: string, sequence: number, ts: number, dur: number): this {
    const args = { "Sequence number": sequence, "Fwd thread id": 1 }
    this.op(`autograd::engine::evaluate_function: ${name}`, ts, dur, args, 2)
    return this.op(name, ts + 0.1, dur - 0.2, args, 2)
  }

  accumulate(shape: ReadonlyArray<number>, ts: number, type = "float"): this {
    this.op("autograd::engine::evaluate_function: torch::autograd::AccumulateGrad", ts, 1, {}, 2)
    const args = { "Input Dims": [shape], "Input type": [type] }
    return this.op("torch::autograd::AccumulateGrad", ts + 0.1, 0.8, args, 2)
  }

  get json(): string {
    return JSON.stringify({ ...this.members, traceEvents: this.events })
  }

  get bytes(): Uint8Array {
    return new TextEncoder().encode(this.json)
  }
}

/**
 * One step of a model of two linear layers inside a block, and a loss outside it. Device time, us, per layer:
 * Linear_0 forward 10, backward 20; Block_0's own add forward 5, backward 0; Linear_1 forward 30, backward 40; loss
 * forward 2, backward 3 (1 of it the seed of the backward pass); optimizer 12.
 * Kernels leave 1 us between each other; the step begins at host time `at` and takes 200 us.
 */
export const smallStep = (trace: ChromeTrace, at: number, sequence: number): ChromeTrace => {
  trace.host("user_annotation", "ProfilerStep#1", at, 199)
  trace.module("Net_0", at + 1, 40).module("Block_0", at + 2, 36)
  trace.module("Linear_0", at + 3, 8)
  trace.op("aten::linear", at + 4, 6, { "Sequence number": sequence })
  trace.kernel("gemm_a", at + 5, at + 10, 10)
  trace.op("aten::add", at + 12, 4, { "Sequence number": sequence + 1 })
  trace.kernel("vectorized_add", at + 13, at + 21, 5)
  trace.module("Linear_1", at + 18, 8)
  trace.op("aten::linear", at + 19, 6, { "Sequence number": sequence + 2 })
  trace.kernel("gemm_b", at + 20, at + 27, 30)
  trace.op("aten::cross_entropy_loss", at + 45, 4, { "Sequence number": sequence + 3 })
  trace.kernel("nll_loss_forward", at + 46, at + 58, 2)
  trace.host("python_function", "torch/_tensor.py(570): backward", at + 50, 60)
  trace.op("aten::ones_like", at + 51, 2)
  trace.kernel("fill", at + 52, at + 61, 1)
  trace.node("NllLossBackward0", sequence + 3, at + 60, 5).kernel("nll_backward", at + 61, at + 63, 2, 2)
  trace.node("MmBackward0", sequence + 2, at + 66, 5).kernel("gemm_c", at + 67, at + 66, 40, 2)
  trace.accumulate([4, 8], at + 72)
  trace.node("AddBackward0", sequence + 1, at + 74, 2)
  trace.node("AddmmBackward0", sequence, at + 77, 5).kernel("gemm_d", at + 78, at + 107, 20, 2)
  trace.accumulate([8], at + 83)
  trace.accumulate([8, 8], at + 85)
  trace.host("user_annotation", "Optimizer.step#AdamW.step", at + 112, 20)
  return trace.kernel("multi_tensor_apply_kernel", at + 115, at + 130, 12)
}
