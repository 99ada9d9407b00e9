// Results of serving benchmarks (vllm bench serve, sglang.bench_serving): with their single requests a trace, without them a
// summary, which is refused and told how to record the rest. Knows those files and nothing of other traces.
import { counted } from "../../core/units.ts"
import { showValue, TraceError } from "../trace-error.ts"
import { momentOfNumber } from "./arrivals.ts"
import { tokenCount, type Timed, type TimedTrace } from "./traced.ts"

type Json = Readonly<Record<string, unknown>>

/** What such results have, and no trace of requests. */
const marks = ["request_throughput", "requests_per_second", "avg_latency", "mean_ttft_ms", "input_lens"]

export const isBenchmark = (value: Json): boolean => marks.some((mark) => value[mark] !== undefined)

/** Whether a run sent all of its requests at its beginning: at an endless rate, and no request waited for another. */
const sentAtOnce = ({ request_rate: rate, max_concurrency: limit }: Json): boolean =>
  (rate === Infinity || rate === "inf") && (limit === null || limit === undefined)

/** The requests of a run. Throws `TraceError` where it does not say them, or not when they were sent. */
export const benchmarkRequests = (file: string, runs: ReadonlyArray<Json>): TimedTrace => {
  const refuse = (field: string, value: string, accepted: string) =>
    new TraceError({ file, field, value, accepted })
  const [run] = runs
  if (runs.length > 1) {
    const accepted = "the results of one run: each has a clock of its own"
    throw refuse("content", `the results of ${runs.length} runs of a benchmark`, accepted)
  }
  const { input_lens: inputs, output_lens: outputs, errors, queue_times: waits } = run!
  if (!Array.isArray(inputs) || !Array.isArray(outputs)) {
    const accepted =
      "its single requests as well: vllm bench serve --save-result --save-detailed writes them (input_lens, output_lens, start_times)"
    throw refuse("content", "a benchmark's summary, without its requests", accepted)
  }
  const isAtOnce = run!["start_times"] === undefined && sentAtOnce(run!)
  const starts: unknown = isAtOnce ? inputs.map(() => 0) : run!["start_times"]
  if (!Array.isArray(starts)) {
    const accepted =
      "when each request was sent, as vllm bench serve --save-detailed has it (sglang.bench_serving does not record it)"
    throw refuse("start_times", "missing", accepted)
  }
  if (outputs.length !== inputs.length || starts.length !== inputs.length) {
    const value = `${starts.length} (and ${inputs.length} input_lens, ${outputs.length} output_lens)`
    throw refuse("start_times", value, "one of each a request")
  }
  const warnings: Array<string> = []
  const timed: Array<Timed> = []
  let failed = 0
  for (const [index, start] of (starts as ReadonlyArray<unknown>).entries()) {
    const place = `request ${index}`
    const error: unknown = Array.isArray(errors) ? errors[index] : undefined
    if (typeof error === "string" && error !== "") {
      failed++
      continue
    }
    if (!(typeof start === "number" && start >= 0 && start <= Number.MAX_SAFE_INTEGER))
      throw refuse(`${place}, start_times`, showValue(start), "seconds, at least 0")
    timed.push({
      ...momentOfNumber(start),
      promptTokens: tokenCount(file, place, "input_lens", inputs[index]),
      outputTokens: tokenCount(file, place, "output_lens", outputs[index])
    })
  }
  if (isAtOnce)
    warnings.push(
      `${file} does not say when requests were sent: all at once, by its request_rate (${String(run!["request_rate"])})`
    )
  if (failed > 0)
    warnings.push(
      `${counted(failed, "request")} of ${file} failed in the benchmark and ${failed === 1 ? "was" : "were"} left out`
    )
  if (Array.isArray(waits) && waits.some((wait) => typeof wait === "number" && wait > 0.01)) {
    warnings.push(
      `requests of ${file} waited in the client (--max-concurrency): they arrive when they were sent, not when they were due`
    )
  }
  return { format: "benchmark", timed, perSecond: 1, sharedPrefixes: false, warnings }
}
