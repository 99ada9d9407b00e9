// Environment variables whose names begin with TANDEM_: every one that something here reads, so that a mistyped name or a word that means
// nothing is not taken for what is usual. Reads no variable itself.
import * as Effect from "effect/Effect"
import { InputError } from "../core/input-error.ts"
import { didYouMean } from "../scenarios/file/similar.ts"
import type { Variables } from "./job/environment.ts"
import { transports } from "./job/meeting.ts"

const yesOrNo = ["0", "1"]

/** What `exec` and its libraries read, and the words that mean something where that is all; nothing is said of paths, names and numbers. */
export const read: Readonly<Record<string, ReadonlyArray<string> | undefined>> = {
  TANDEM_BLAS: undefined,
  TANDEM_CUBLASLT: undefined,
  // Whoever opens the library refuses other words, and `exec info` tells why.
  TANDEM_CUDA_ATTENTION: undefined,
  TANDEM_CUDA_GRAPHS: yesOrNo,
  TANDEM_CUDA_GROUPED: yesOrNo,
  TANDEM_CUDA_NCCL_SUMS: yesOrNo,
  TANDEM_CUDA_PIECES: yesOrNo,
  TANDEM_CUDA_PRIORITY: yesOrNo,
  TANDEM_CUDA_WGMMA: yesOrNo,
  TANDEM_CUDNN: undefined,
  TANDEM_INTERFACE: undefined,
  TANDEM_LOCAL_RANK: undefined,
  TANDEM_NCCL: undefined,
  TANDEM_RANK: undefined,
  TANDEM_SECRET: undefined,
  TANDEM_SECRET_FD: undefined,
  TANDEM_SECRET_FILE: undefined,
  TANDEM_TRANSPORT: transports,
  TANDEM_UCX: undefined,
  TANDEM_WORLD_SIZE: undefined
}

/** What installing, building and testing read. */
export const readElsewhere: ReadonlyArray<string> = [
  "TANDEM_BACKEND",
  "TANDEM_CASES",
  "TANDEM_CHROMIUM",
  "TANDEM_CUDA_ARCHS",
  "TANDEM_FUZZ",
  "TANDEM_NATIVE",
  "TANDEM_NODES",
  "TANDEM_RECORD_DIGESTS",
  "TANDEM_RECORD_SIGNATURES",
  "TANDEM_REQUIRE_BROWSER",
  "TANDEM_REQUIRE_NATIVE",
  "TANDEM_REQUIRE_UCX",
  "TANDEM_SEED",
  "TANDEM_SOAK",
  "TANDEM_TEST_CUDNN_VERSION",
  "TANDEM_TEST_REPORT"
]

/** Warnings of names that nothing reads, which may be somebody's own. Fails where a variable is none of the words that it may be. */
export const checkVariables = (variables: Variables): Effect.Effect<ReadonlyArray<string>, InputError> =>
  Effect.suspend(() => {
    const warnings: Array<string> = []
    for (const [name, value = ""] of Object.entries(variables)) {
      if (!name.startsWith("TANDEM_")) continue
      const words = Object.hasOwn(read, name) ? read[name] : undefined
      if (words !== undefined && value !== "" && !words.includes(value))
        return Effect.fail(
          new InputError({
            file: "environment",
            field: name,
            value: JSON.stringify(value),
            accepted: words.join(", ")
          })
        )
      if (!Object.hasOwn(read, name) && !readElsewhere.includes(name))
        warnings.push(
          `environment: nothing reads ${name}${didYouMean(name, [...Object.keys(read), ...readElsewhere])}`
        )
    }
    return Effect.succeed(warnings)
  })
