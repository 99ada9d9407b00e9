// exec info: backends, devices and libraries; what is missing, and how to get it.
import { availableParallelism, cpus, totalmem } from "node:os"
import * as Effect from "effect/Effect"
import { counted, formatBytes } from "../../core/units.ts"
import { json, said } from "../../scenarios/cli/execute.ts"
import { version } from "../../scenarios/cli/version.ts"
import { transportIn } from "../job/environment.ts"
import type { TransportWish } from "../job/meeting.ts"
import { defaultStreams } from "../job/mesh.ts"
import type { AddonUcx } from "../native-addon.ts"
import { nativeInfo, ucxInfo } from "../native.ts"
import { runCommand } from "./command.ts"

export interface InfoCommandOptions {
  readonly json?: boolean
}

export const infoCommand = (options: InfoCommandOptions): Promise<number> =>
  runCommand(
    Effect.gen(function* () {
      const native = nativeInfo()
      const host = {
        processor: cpus()[0]?.model ?? "unknown",
        cores: availableParallelism(),
        memoryBytes: totalmem(),
        node: process.versions.node
      }
      const built = !("missing" in native)
      const transport = built ? transportOf(ucxInfo(), yield* transportIn(process.env)) : undefined
      if (options.json === true) {
        return {
          text: json({
            version: version(),
            host,
            native: built
              ? {
                  built,
                  backends: native.backends.map((backend) => ({
                    ...backend,
                    kernels: backend.kernels.length
                  })),
                  blas: native.blas,
                  simd: native.simd,
                  compiler: native.compiler,
                  transport
                }
              : { built, missing: native.missing }
          }),
          ok: built
        }
      }
      const lines = [
        `tandem ${version()}, Node ${host.node}`,
        `host      ${host.processor}, ${counted(host.cores, "core")}, ${formatBytes(host.memoryBytes)}`
      ]
      if (!built)
        return { text: `${[...lines, `native    not built: ${native.missing}`].join("\n")}\n`, ok: false }
      lines.push(`native    ${native.simd}, built by ${native.compiler}`, `matrices  ${native.blas}`)
      lines.push(`processes ${transport!.name}: ${transport!.because}`)
      for (const { name, title, available, devices, uses, missing, kernels } of native.backends) {
        const where = devices.length === 0 ? "no device" : devices.join(", ")
        lines.push(
          `${name.padEnd(9)} ${title}: ${available ? `${kernels.length} kernels, ${where}` : "not here"}`
        )
        for (const what of uses) lines.push(`          ${what}`)
        for (const what of missing) lines.push(`          ${what}`)
      }
      return said(`${lines.join("\n")}\n`)
    })
  )

/** What carries messages between processes of the cpu backend that are told as this one, as far as one process can know. */
const transportOf = (ucx: AddonUcx, wish: TransportWish) => {
  const tcp = `TCP, ${defaultStreams} connections to a peer`
  const told = (name: string, because: string) => ({ name, streams: defaultStreams, because })
  if (wish === "tcp") return told("tcp", `${tcp}, as TANDEM_TRANSPORT says`)
  const missing = "missing" in ucx ? ucx.missing : undefined
  const here = "missing" in ucx ? "" : `UCX ${ucx.version} (${ucx.path})`
  if (wish === "ucx") {
    const because =
      missing === undefined
        ? `${here}, as TANDEM_TRANSPORT says`
        : `as TANDEM_TRANSPORT says, and no job begins with it: ${missing}`
    return told("ucx", because)
  }
  const others =
    missing === undefined
      ? `${here} where there is RDMA between all ranks, else ${tcp}`
      : `${tcp}; ${missing}`
  return told("memory", `read where it lies, between processes of one host; between hosts ${others}`)
}
