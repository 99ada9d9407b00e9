// How a recorded run was parallel beyond data, from what its ranks say to each other and when. Knows nothing of layers.
import type { Parallelism, ShardedRun } from "../import-report.ts"
import type { CollectiveCall } from "./collectives.ts"
import { rootUnit } from "./sharded.ts"
import type { KinetoTrace } from "./trace.ts"

/** Bytes above which an exchange is of activations or parameters, not of a loss or a norm. */
const substantial = 1 << 16

/** Transfers that any kind of parallel run may make: they say of no stage that it handed on to the next. */
const oneSided = /rma_|shmem|memcpy ptop/iu

const sharded = /^(?:FSDP::|FullyShardedDataParallel)/u

/** In the order fsdp, tensor, pipeline, expert. */
export const findParallelism = (
  trace: KinetoTrace,
  calls: ReadonlyArray<CollectiveCall>,
  steps: number
): ReadonlyArray<Parallelism> => {
  /** Calls per step of one kind in one phase (any, where none is given). */
  const count = (op: CollectiveCall["op"], phase?: CollectiveCall["phase"]): number =>
    calls.filter(
      (call) =>
        call.op === op &&
        (phase === undefined || call.phase === phase) &&
        (call.sizeBytes === undefined || call.sizeBytes >= substantial)
    ).length / steps
  const scattersForward = count("reduce_scatter", "forward")
  const gathers = count("all_gather", "forward") + count("all_gather", "backward")
  const found: Array<Parallelism> = []
  const isSharded =
    trace.names.texts.some((name) => sharded.test(name)) ||
    (gathers >= 1 && count("reduce_scatter", "backward") >= 1 && scattersForward < 2)
  if (isSharded) found.push("fsdp")
  // The scatter of a sharded run's root is launched when the backward pass has ended.
  if (count("all_reduce", "forward") >= 1 || (!isSharded && scattersForward >= 1)) found.push("tensor")
  if (calls.some(({ op, name }) => op === "send_recv" && !oneSided.test(name)) && count("send_recv") > 0)
    found.push("pipeline")
  if (count("all_to_all") > 0) found.push("expert")
  return found
}

const told: Readonly<Record<Parallelism, string>> = {
  fsdp: "its parameters were sharded (FSDP): gathering and scattering them is part of its step, and the shapes of its gradients may be those of shards",
  tensor: "its layers were divided among ranks (tensor parallel): it computed one rank's share of each",
  pipeline:
    "its layers were divided into stages (pipeline parallel): it ran one stage, and waits for others are in its gaps",
  expert: "its experts were divided among ranks (expert parallel): it computed one rank's experts"
}

/** Bytes of each number that such messages of a unit carry, from a unit whose parameters are known; undefined where none is. */
const widthOf = ({ ranks, units }: ShardedRun, messages: "gathers" | "scatters"): number | undefined => {
  // Calls of FSDP's first version name no unit, and the root has those of all: of which they carried how much is not known.
  if (units.length > 1 && units.every(({ name, gathers }) => name === rootUnit || gathers.calls === 0))
    return undefined
  const unit = units.find((one) => one.elements > 0 && one[messages].calls > 0)
  if (unit === undefined) return undefined
  const { calls, bytes } = unit[messages]
  const width = Math.round((bytes / calls / unit.elements) * ranks)
  return width > 0 ? width : undefined
}

/** What a scenario must say for parts to travel as they did. */
const dtypesOf = (run: ShardedRun): string => {
  const said = [
    ["parameters were gathered", widthOf(run, "gathers"), "shard.parameterDtype"],
    ["gradients were summed", widthOf(run, "scatters"), "shard.reduceDtype"]
  ] as const
  return said
    .filter(([, width]) => width !== undefined)
    .map(([what, width, field]) => `. Its ${what} in ${8 * width!} bits (${field} says so of a scenario)`)
    .join("")
}

/** What a user must know of a trace of such a run; undefined for plain data parallelism. */
export const parallelismWarning = (
  found: ReadonlyArray<Parallelism>,
  sharded: ShardedRun | undefined
): string | undefined => {
  if (sharded !== undefined && found.every((kind) => kind === "fsdp"))
    return `its parameters were sharded over ${sharded.ranks} ranks (FSDP): the profile is of the whole model, without gathers, scatters, FSDP's copies (of a scenario, shard.copies has FSDP2's) and hooks${sharded.ranks > 1 ? `; the optimizer of one part counts ${sharded.ranks} times` : ""}. Kernels are those of its param_dtype: under autocast they are others${dtypesOf(sharded)}`
  return found.length === 0
    ? undefined
    : `the run was not plain data-parallel: ${found.map((kind) => told[kind]).join("; ")}. For data-parallel training of the whole model record it on one device, or under DDP`
}
