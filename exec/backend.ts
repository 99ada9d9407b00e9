// Which native backend a run goes by where its caller does not say: one choice for everything that a command runs.
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type { Sums } from "../core/agreement/narrow.ts"
import { InputError } from "../core/input-error.ts"
import { nativeInfo } from "./native.ts"

/** The backend of `execute` unless the execution names one; "cpu" by default. */
export const CurrentBackend = Context.Reference<string>("tandem/exec/CurrentBackend", {
  defaultValue: () => "cpu"
})

/**
 * How a backend adds up what members of a collective hold in 16 bits. All add in float64 and round once, but for GPUs of several processes,
 * whose NCCL rounds after each member, unless it is told to leave such sums to own kernels (native/cuda/remote-reduction.cu).
 */
export const sumsOf = (
  backend: string,
  ofProcesses: boolean,
  environment: Readonly<Record<string, string | undefined>> = process.env
): Sums =>
  backend === "cuda" && ofProcesses && environment["TANDEM_CUDA_NCCL_SUMS"] !== "0" ? "each" : "once"

/** What a user may ask for. There is one more for tests, which is taken by its name and told of to nobody. */
const wishes = ["auto", "cpu", "cuda"]

/**
 * A backend that is here by its name, or "auto": a GPU's where there is one, else the processor's. Fails for a name that is not
 * built in, and for a backend that cannot run here, with the reason.
 */
export const chooseBackend = (wish: string): Effect.Effect<string, InputError> =>
  Effect.suspend(() => {
    const info = nativeInfo()
    const backends = "missing" in info ? [] : info.backends
    if (wish === "auto") {
      const gpu = backends.some(({ name, available }) => name === "cuda" && available)
      return Effect.succeed(gpu ? "cuda" : "cpu")
    }
    // whoever runs something tells that the addon is missing
    const found = "missing" in info ? undefined : backends.find(({ name }) => name === wish)
    if ("missing" in info || found?.available === true) return Effect.succeed(wish)
    const isHere = (name: string): boolean =>
      name === "auto" || backends.some((one) => one.name === name && one.available)
    const accepted =
      found === undefined
        ? wishes.map((name) => (isHere(name) ? name : `${name} (not here; exec info says why)`))
        : wishes.filter(isHere)
    const value = found === undefined ? wish : `${wish} (${found.missing.join("; ")})`
    return Effect.fail(new InputError({ file: "--backend", field: "", value, accepted: accepted.join(", ") }))
  })
