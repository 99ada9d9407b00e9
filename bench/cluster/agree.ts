// `exec agree` with each rank on a host of its own: in a network namespace (namespaces.ts), whose link is as fast as asked. Ranks that
// share no host send each other what others hand around, which ranks that `exec agree --processes` starts do not.
//   node bench/cluster/agree.ts scenarios/agree/streaming-diloco.yaml --ranks 3 --set algorithm.wire=float4 [--backend cuda] [--mps]
// Exit code 0 where both machines agree, 1 where they do not, 2 where it cannot be tried.
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import * as path from "node:path"
import { parseBandwidth } from "../../core/units.ts"
import { backendOf, optionsOf, quantityOf, wholeNumber } from "../numbers.ts"
import { startMps } from "./mps.ts"
import { Cluster, whyNoCluster } from "./namespaces.ts"
import { startRanks } from "./runners.ts"

const { values: options, positionals } = optionsOf({
  allowPositionals: true,
  options: {
    backend: { type: "string", default: "cpu" },
    ranks: { type: "string", default: "2" },
    point: { type: "string", default: "1Gbit/s" },
    set: { type: "string", multiple: true, default: [] },
    mps: { type: "boolean", default: false },
    json: { type: "boolean", default: false }
  }
})
const ranks = wholeNumber("--ranks", options.ranks)
const backend = backendOf(options.backend)
const rate = quantityOf("--point", options.point, parseBandwidth)
const [scenario] = positionals
if (scenario === undefined || positionals.length > 1) {
  console.error(`${positionals.length} scenarios; expected one`)
  process.exit(2)
}
const reason = whyNoCluster()
if (reason !== undefined) {
  console.error(`no network namespaces here: ${reason}`)
  process.exit(2)
}

const folder = mkdtempSync(path.join(tmpdir(), "agree-"))
const mps = options.mps ? startMps(folder) : undefined
process.on("exit", () => {
  mps?.stop()
  rmSync(folder, { recursive: true, force: true })
})
const cluster = new Cluster(Array.from({ length: ranks }, () => ({ up: rate, down: rate })))
try {
  const sets = [`world.ranks=${ranks}`, ...options.set].flatMap((one) => ["--set", one])
  const json = options.json ? ["--json"] : []
  const command = ["exec/cli.ts", "agree", scenario, "--backend", backend, ...sets, ...json]
  const children = startRanks(ranks, cluster, command, "pipe", { env: mps?.env ?? {} })
  children[0]!.stdout!.pipe(process.stdout)
  for (const child of children.slice(1)) child.stdout!.resume()
  const codes = await Promise.all(
    children.map((child) => new Promise<number>((resolve) => child.on("close", (code) => resolve(code ?? 1))))
  )
  process.exitCode = Math.max(...codes)
} finally {
  cluster.close()
}
