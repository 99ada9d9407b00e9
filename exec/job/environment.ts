// Who this process is among the processes of a job, as whoever started it says: tandem itself, torchrun, Slurm, MPI or a
// Kubernetes indexed job. Reads environment variables alone; knows nothing of sockets.
import * as Effect from "effect/Effect"
import { InputError } from "../../core/input-error.ts"

export interface Place {
  readonly rank: number
  readonly size: number
  /** Position among the processes of this host, where the launcher says. */
  readonly localRank: number | undefined
  /** Where rank 0 listens for the others. */
  readonly master: { readonly host: string; readonly port: number }
  /** Who said so, for messages: "torchrun". */
  readonly launcher: string
}

/** What carries messages between processes: "auto" is UCX where it has shared memory or RDMA between all ranks, else TCP. */
export const transports = ["auto", "tcp", "ucx"] as const
export type TransportWish = (typeof transports)[number]

export type Variables = Readonly<Record<string, string | undefined>>

interface Launcher {
  readonly name: string
  readonly rank: string
  readonly size: ReadonlyArray<string>
  readonly localRank: string | undefined
  /** What says where rank 0 is, if `MASTER_ADDR` does not. */
  readonly host?: (variables: Variables) => string | undefined
  readonly port?: (variables: Variables) => number | undefined
  /** Added to MASTER_PORT. */
  readonly portOffset?: (variables: Variables) => number
  /** Which variables would say where rank 0 is. */
  readonly hint: string
}

/**
 * First match wins: torchrun under Slurm sets both kinds of variables, and its own are the truer ones.
 * torchrun: https://pytorch.org/docs/stable/elastic/run.html; Slurm: srun(1), "OUTPUT ENVIRONMENT VARIABLES"; Open MPI:
 * OMPI_COMM_WORLD_*; MPICH and Intel MPI (hydra): PMI_*; Kubernetes: Job, completionMode Indexed.
 */
const launchers: ReadonlyArray<Launcher> = [
  {
    name: "tandem",
    rank: "TANDEM_RANK",
    size: ["TANDEM_WORLD_SIZE"],
    localRank: "TANDEM_LOCAL_RANK",
    hint: "MASTER_ADDR and MASTER_PORT"
  },
  {
    name: "torchrun",
    rank: "RANK",
    size: ["WORLD_SIZE"],
    localRank: "LOCAL_RANK",
    // torchrun's own store listens at MASTER_PORT where its agent keeps it.
    portOffset: ({ TORCHELASTIC_USE_AGENT_STORE: agent }) => (agent === "True" ? 1 : 0),
    hint: "MASTER_ADDR and MASTER_PORT"
  },
  {
    name: "Slurm",
    rank: "SLURM_PROCID",
    size: ["SLURM_NTASKS", "SLURM_NPROCS"],
    localRank: "SLURM_LOCALID",
    host: (variables) => firstHost(variables["SLURM_STEP_NODELIST"] ?? variables["SLURM_JOB_NODELIST"]),
    port: (variables) => slurmPort(variables["SLURM_JOB_ID"], variables["SLURM_STEP_ID"]),
    hint: "SLURM_STEP_NODELIST and SLURM_JOB_ID, or MASTER_ADDR and MASTER_PORT"
  },
  {
    name: "Open MPI",
    rank: "OMPI_COMM_WORLD_RANK",
    size: ["OMPI_COMM_WORLD_SIZE"],
    localRank: "OMPI_COMM_WORLD_LOCAL_RANK",
    hint: "MASTER_ADDR and MASTER_PORT (mpirun -x MASTER_ADDR=<host of rank 0> -x MASTER_PORT=29400)"
  },
  {
    name: "MPI (PMI)",
    rank: "PMI_RANK",
    size: ["PMI_SIZE"],
    localRank: "MPI_LOCALRANKID",
    hint: "MASTER_ADDR and MASTER_PORT (mpiexec -genv MASTER_ADDR <host of rank 0> -genv MASTER_PORT 29400)"
  },
  {
    name: "Kubernetes",
    rank: "JOB_COMPLETION_INDEX",
    size: ["JOB_COMPLETIONS", "WORLD_SIZE"],
    localRank: undefined,
    hint: "JOB_COMPLETIONS (spec.completions), MASTER_ADDR (<job>-0.<subdomain>) and MASTER_PORT in the pod's env"
  }
]

/** This process's place; undefined where no launcher has said anything. Fails where what is said is incomplete or no number. */
export const placeIn = (variables: Variables): Effect.Effect<Place | undefined, InputError> =>
  Effect.suspend(() => {
    const launcher = launchers.find(({ rank }) => filled(variables[rank]))
    if (launcher === undefined) return Effect.succeed(undefined)
    const sizeName = launcher.size.find((name) => filled(variables[name]))
    if (sizeName === undefined) return missing(launcher, launcher.size.join(" or "))
    const size = whole(variables[sizeName])
    if (size === undefined || size < 1)
      return bad(sizeName, variables[sizeName], "a whole number of processes")
    const rank = whole(variables[launcher.rank])
    if (rank === undefined || rank >= size) {
      return bad(
        launcher.rank,
        variables[launcher.rank],
        `a rank from 0 to ${size - 1}, for ${sizeName} is ${size}`
      )
    }
    const localName = launcher.localRank
    const local =
      localName === undefined || !filled(variables[localName]) ? undefined : whole(variables[localName])
    if (local === undefined && localName !== undefined && filled(variables[localName]))
      return bad(localName!, variables[localName!], "a whole number")
    const host = filled(variables["MASTER_ADDR"]) ? variables["MASTER_ADDR"] : launcher.host?.(variables)
    if (host === undefined) return missing(launcher, "MASTER_ADDR", launcher.hint)
    const given = whole(variables["MASTER_PORT"])
    const port = filled(variables["MASTER_PORT"])
      ? given === undefined
        ? undefined
        : given + (launcher.portOffset?.(variables) ?? 0)
      : launcher.port?.(variables)
    if (port === undefined && !filled(variables["MASTER_PORT"]))
      return missing(launcher, "MASTER_PORT", launcher.hint)
    if (port === undefined || port < 1 || port > 65535) {
      return bad("MASTER_PORT", variables["MASTER_PORT"], "a port from 1 to 65535")
    }
    return Effect.succeed({ rank, size, localRank: local, master: { host, port }, launcher: launcher.name })
  })

/** What `TANDEM_TRANSPORT` asks for; "auto" where it is not set. */
export const transportIn = (variables: Variables): Effect.Effect<TransportWish, InputError> => {
  const wish = variables["TANDEM_TRANSPORT"]
  const found = filled(wish) ? transports.find((name) => name === wish) : "auto"
  return found === undefined ? bad("TANDEM_TRANSPORT", wish, transports.join(", ")) : Effect.succeed(found)
}

const filled = (value: string | undefined): value is string => value !== undefined && value !== ""

const whole = (value: string | undefined): number | undefined =>
  value !== undefined && /^\d{1,9}$/u.test(value) ? Number(value) : undefined

const bad = (name: string, value: string | undefined, accepted: string) =>
  Effect.fail(
    new InputError({ file: "environment", field: name, value: JSON.stringify(value ?? ""), accepted })
  )

const missing = ({ name, rank }: Launcher, what: string, hint = what) =>
  Effect.fail(
    new InputError({
      file: "environment",
      field: what,
      accepted: `${hint}, for ${rank} says that ${name} has started this`
    })
  )

/** The first name of a Slurm node list: "node[003-006,9],gpu1" is "node003". */
export const firstHost = (list: string | undefined): string | undefined => {
  if (!filled(list)) return undefined
  const match = /^([^,[\]]+)(?:\[([^\]]*)\]([^,[\]]*))?/u.exec(list.trim())
  if (match === null) return undefined
  const [, prefix = "", ranges, suffix = ""] = match
  if (ranges === undefined) return prefix
  const first = /^\d+/u.exec(ranges)
  return first === null ? undefined : `${prefix}${first[0]}${suffix}`
}

/**
 * A port that all processes of a job step find without asking: Slurm gives out none. Below those that Linux hands out to whoever asks
 * for any (32768 to 60999, where nobody has changed net.ipv4.ip_local_port_range).
 */
const slurmPort = (job: string | undefined, step: string | undefined): number | undefined => {
  const number = whole(job)
  return number === undefined ? undefined : 20_000 + ((number * 16 + (whole(step) ?? 0)) % 10_000)
}
