// Who this process is among the processes of a job, as whoever started it says: tandem itself, torchrun, Slurm, MPI or a
// Kubernetes indexed job. Reads environment variables alone; knows nothing of sockets.
import { createHash } from "node:crypto"
import * as Effect from "effect/Effect"
import { InputError } from "../../core/input-error.ts"
import { transports, type TransportWish } from "./meeting.ts"

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

export type Variables = Readonly<Record<string, string | undefined>>

interface Launcher {
  readonly name: string
  readonly rank: string
  readonly size: ReadonlyArray<string>
  readonly localRank: string | undefined
  /** Whether `rank`, where it is set, is this process's: a launcher's variables are there, too, in what others start beneath it. */
  readonly counts?: (variables: Variables) => boolean
  /** What says where rank 0 is, if `MASTER_ADDR` does not. */
  readonly host?: (variables: Variables) => string | undefined
  readonly port?: (variables: Variables) => number | undefined
  /** Added to MASTER_PORT. */
  readonly portOffset?: (variables: Variables) => number
  /** Which variables would say where rank 0 is. */
  readonly hint: string
}

/**
 * First match wins. Slurm comes late: torchrun and mpirun in one of its jobs leave its variables as they are, and these then say
 * who mpirun itself is, or its helper on another node.
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
    name: "Open MPI",
    rank: "OMPI_COMM_WORLD_RANK",
    size: ["OMPI_COMM_WORLD_SIZE"],
    localRank: "OMPI_COMM_WORLD_LOCAL_RANK",
    host: (variables) => mpiHost(variables, "OMPI_COMM_WORLD_LOCAL_SIZE", "OMPI_COMM_WORLD_SIZE"),
    port: (variables) => namedPort(variables["PMIX_NAMESPACE"] ?? variables["OMPI_MCA_ess_base_jobid"]),
    hint: "MASTER_ADDR and MASTER_PORT (mpirun -x MASTER_ADDR=<host of rank 0> -x MASTER_PORT=29400)"
  },
  {
    name: "MPI (PMI)",
    rank: "PMI_RANK",
    size: ["PMI_SIZE"],
    localRank: "MPI_LOCALRANKID",
    // srun --mpi=pmi2 sets these as well, beside its own.
    counts: ({ PMI_JOBID: job, SLURM_JOB_ID: slurm, SLURM_STEP_ID: step }) => job !== `${slurm}.${step}`,
    host: (variables) => mpiHost(variables, "MPI_LOCALNRANKS", "PMI_SIZE"),
    port: (variables) => slurmPort(variables["SLURM_JOB_ID"], undefined),
    hint: "MASTER_ADDR and MASTER_PORT (mpiexec -genv MASTER_ADDR <host of rank 0> -genv MASTER_PORT 29400)"
  },
  {
    name: "Slurm",
    rank: "SLURM_PROCID",
    size: ["SLURM_NTASKS", "SLURM_NPROCS"],
    localRank: "SLURM_LOCALID",
    counts: inSlurmStep,
    host: (variables) => firstHost(variables["SLURM_STEP_NODELIST"] ?? variables["SLURM_JOB_NODELIST"]),
    port: (variables) => slurmPort(variables["SLURM_JOB_ID"], variables["SLURM_STEP_ID"]),
    hint: "SLURM_STEP_NODELIST and SLURM_JOB_ID, or MASTER_ADDR and MASTER_PORT"
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
    const launcher = launchers.find(
      ({ rank, counts }) => filled(variables[rank]) && (counts?.(variables) ?? true)
    )
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

/** What Node says of one, in words of our own: declarations that people get name none of Node's types, which not every project has. */
interface InterfaceAddress {
  readonly address: string
  readonly family: string
  readonly scopeid?: number | undefined
}

/**
 * The address of this host that TANDEM_INTERFACE asks for, as it is or by the name of its interface: IPv4's first, and none that is of
 * one link alone, which nobody could reach without being told by which. Undefined where nothing is asked for.
 */
export const addressIn = (
  { TANDEM_INTERFACE: wanted }: Variables,
  interfaces: Readonly<Record<string, ReadonlyArray<InterfaceAddress> | undefined>>
): Effect.Effect<string | undefined, InputError> =>
  Effect.suspend(() => {
    if (!filled(wanted)) return Effect.succeed(undefined)
    const usable = (addresses: ReadonlyArray<InterfaceAddress> = []): ReadonlyArray<string> =>
      addresses
        .filter((one) => one.family === "IPv4" || one.scopeid === 0)
        .toSorted((a, b) => Number(b.family === "IPv4") - Number(a.family === "IPv4"))
        .map(({ address }) => address)
    const all = Object.values(interfaces).flatMap(usable)
    const own = all.find((address) => address === wanted) ?? usable(interfaces[wanted])[0]
    if (own !== undefined) return Effect.succeed(own)
    const named = Object.keys(interfaces).filter((name) => usable(interfaces[name]).length > 0)
    return bad(
      "TANDEM_INTERFACE",
      wanted,
      `an address of this host or one of its interfaces that has one: ${named.join(", ")}`
    )
  })

/**
 * How many tasks this Slurm job is for, where it has several and this process is none of them: a batch script, or a shell, that
 * srun did not start.
 */
export const tasksWithoutSrun = (variables: Variables): number | undefined => {
  const tasks = whole(variables["SLURM_NTASKS"])
  const outside = filled(variables["SLURM_JOB_ID"]) && !inSlurmStep(variables)
  return outside && tasks !== undefined && tasks > 1 ? tasks : undefined
}

/**
 * Whether srun has started this. A batch script has a rank, 0, and no step; the shell of an interactive allocation has one with a
 * number that no step of srun's has (SLURM_INTERACTIVE_STEP of slurm.h, 2^32 - 6).
 */
function inSlurmStep({ SLURM_STEP_ID: step }: Variables): boolean {
  return whole(step) !== undefined
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

/** The first name of a Slurm node list: "node[003-006,9],gpu1" is "node003", "rack[1-2]n[0-3]" is "rack1n0". */
export const firstHost = (list: string | undefined): string | undefined => {
  const first = /^(?:[^,[\]]|\[\d[\d,-]*\])+/u.exec(list?.trim() ?? "")?.[0]
  return first?.replaceAll(/\[(\d+)[^\]]*\]/gu, "$1")
}

/** Where rank 0 of an MPI job is: here where all ranks are, or, in a Slurm job, on its first node, which mpirun fills first. */
const mpiHost = (variables: Variables, here: string, all: string): string | undefined =>
  filled(variables[here]) && variables[here] === variables[all]
    ? "127.0.0.1"
    : firstHost(variables["SLURM_JOB_NODELIST"])

// Ports that all processes find without asking, where the launcher gives out none. They are below those that Linux hands out to
// whoever asks for any (32768 to 60999, where nobody has changed net.ipv4.ip_local_port_range).

const portOf = (number: number): number => 20_000 + (number % 10_000)

/** Of a job step's number. */
const slurmPort = (job: string | undefined, step: string | undefined): number | undefined => {
  const number = whole(job)
  return number === undefined ? undefined : portOf(number * 16 + (whole(step) ?? 0))
}

/** Of a name that no other job of these hosts has. */
const namedPort = (name: string | undefined): number | undefined => {
  if (!filled(name)) return undefined
  return portOf(createHash("sha256").update(name).digest().readUInt32BE())
}
