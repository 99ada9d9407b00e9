// Launchers' variables, as each documents them.
import { readFileSync } from "node:fs"
import type { NetworkInterfaceInfo } from "node:os"
import * as Effect from "effect/Effect"
import { describe, expect, it } from "vitest"
import { parseAllDocuments } from "yaml"
import {
  addressIn,
  firstHost,
  placeIn,
  tasksWithoutSrun,
  type Variables
} from "../../exec/job/environment.ts"

const place = (variables: Variables) => Effect.runSync(placeIn(variables))
const refusal = (variables: Variables) => Effect.runSync(Effect.flip(placeIn(variables))).message

describe("the place of a process in its job", () => {
  it("is read from what launchers set", () => {
    const master = { MASTER_ADDR: "gpu1", MASTER_PORT: "29500" }
    expect(place({ RANK: "3", WORLD_SIZE: "8", LOCAL_RANK: "1", ...master })).toEqual({
      rank: 3,
      size: 8,
      localRank: 1,
      master: { host: "gpu1", port: 29500 },
      launcher: "torchrun"
    })
    expect(
      place({ RANK: "0", WORLD_SIZE: "2", TORCHELASTIC_USE_AGENT_STORE: "True", ...master })?.master.port
    ).toBe(29501)
    expect(
      place({
        SLURM_PROCID: "5",
        SLURM_NTASKS: "6",
        SLURM_LOCALID: "1",
        SLURM_STEP_NODELIST: "node[07-09],big2",
        SLURM_JOB_ID: "1234",
        SLURM_STEP_ID: "2"
      })
    ).toEqual({
      rank: 5,
      size: 6,
      localRank: 1,
      master: { host: "node07", port: 20_000 + ((1234 * 16 + 2) % 10_000) },
      launcher: "Slurm"
    })
    expect(
      place({
        OMPI_COMM_WORLD_RANK: "1",
        OMPI_COMM_WORLD_SIZE: "2",
        OMPI_COMM_WORLD_LOCAL_RANK: "1",
        ...master
      })?.launcher
    ).toBe("Open MPI")
    expect(place({ PMI_RANK: "1", PMI_SIZE: "2", ...master })?.launcher).toBe("MPI (PMI)")
    expect(place({ JOB_COMPLETION_INDEX: "2", JOB_COMPLETIONS: "4", ...master })).toMatchObject({
      rank: 2,
      size: 4,
      launcher: "Kubernetes"
    })
    expect(place({ PATH: "/bin" })).toBeUndefined()
  })

  it("prefers torchrun's variables where Slurm started torchrun", () => {
    const both = {
      SLURM_PROCID: "0",
      SLURM_NTASKS: "2",
      RANK: "5",
      WORLD_SIZE: "16",
      MASTER_ADDR: "a",
      MASTER_PORT: "1"
    }
    expect(place(both)).toMatchObject({ rank: 5, size: 16, launcher: "torchrun" })
  })

  // As Slurm 22.05, Open MPI 4.1 and MPICH 4.0 of Debian 12 set them.
  const batch = {
    SLURM_JOB_ID: "7",
    SLURM_JOB_NODELIST: "tnode[1-2]",
    SLURM_PROCID: "0",
    SLURM_LOCALID: "0",
    SLURM_NTASKS: "4"
  }

  it("is mpirun's in a job of Slurm's, whatever Slurm says of mpirun itself and of its helpers", () => {
    const open = {
      OMPI_COMM_WORLD_SIZE: "4",
      OMPI_COMM_WORLD_LOCAL_SIZE: "3",
      PMIX_NAMESPACE: "1265893377"
    }
    const first = place({ ...batch, ...open, OMPI_COMM_WORLD_RANK: "0" })!
    expect(first).toMatchObject({ rank: 0, size: 4, launcher: "Open MPI", master: { host: "tnode1" } })
    expect(first.master.port).toBeGreaterThanOrEqual(20_000)
    expect(first.master.port).toBeLessThan(30_000)
    const helper = { SLURM_STEP_ID: "0", SLURM_NTASKS: "1", SLURM_STEP_NODELIST: "tnode2" }
    const last = { ...batch, ...helper, ...open, OMPI_COMM_WORLD_RANK: "3", OMPI_COMM_WORLD_LOCAL_SIZE: "1" }
    expect(place(last)).toMatchObject({ rank: 3, size: 4, launcher: "Open MPI", master: first.master })
    const hydra = { PMI_RANK: "3", PMI_SIZE: "4", MPI_LOCALRANKID: "0", MPI_LOCALNRANKS: "1" }
    expect(place({ ...batch, SLURM_STEP_ID: "0", SLURM_PROCID: "1", ...hydra })).toMatchObject({
      rank: 3,
      size: 4,
      localRank: 0,
      launcher: "MPI (PMI)",
      master: { host: "tnode1", port: 20_112 }
    })
  })

  it("is srun's where srun speaks PMI, and nobody's in a batch script or a shell", () => {
    const step = { SLURM_STEP_ID: "0", SLURM_STEP_NODELIST: "tnode[1-2]", SLURM_PROCID: "1" }
    const pmi2 = { PMI_RANK: "1", PMI_SIZE: "4", PMI_JOBID: "7.0" }
    expect(place({ ...batch, ...step, ...pmi2 })).toMatchObject({ rank: 1, size: 4, launcher: "Slurm" })
    for (const alone of [batch, { ...batch, SLURM_STEP_ID: "4294967290" }]) {
      expect(place(alone)).toBeUndefined()
      expect(tasksWithoutSrun(alone)).toBe(4)
    }
    // sbatch without a number of tasks says none.
    const { SLURM_NTASKS: _, ...untold } = batch
    expect([place(untold), tasksWithoutSrun(untold)]).toEqual([undefined, undefined])
    expect(tasksWithoutSrun({ ...batch, ...step })).toBeUndefined()
  })

  it("of Open MPI on one host needs no more variables", () => {
    const one = {
      OMPI_COMM_WORLD_SIZE: "2",
      OMPI_COMM_WORLD_LOCAL_SIZE: "2",
      PMIX_NAMESPACE: "prterun-a-1@1"
    }
    expect(place({ ...one, OMPI_COMM_WORLD_RANK: "1" })?.master).toEqual({
      ...place({ ...one, OMPI_COMM_WORLD_RANK: "0" })?.master,
      host: "127.0.0.1"
    })
  })

  it("is refused where half of it is missing or makes no sense", () => {
    expect(refusal({ RANK: "0" })).toBe(
      "environment: WORLD_SIZE: expected WORLD_SIZE, for RANK says that torchrun has started this"
    )
    expect(refusal({ RANK: "0", WORLD_SIZE: "2" })).toMatch(
      /MASTER_ADDR: expected MASTER_ADDR and MASTER_PORT/
    )
    expect(refusal({ RANK: "2", WORLD_SIZE: "2", MASTER_ADDR: "a", MASTER_PORT: "1" })).toMatch(
      /RANK: "2" is not accepted; expected a rank from 0 to 1/
    )
    expect(refusal({ RANK: "-1", WORLD_SIZE: "2", MASTER_ADDR: "a", MASTER_PORT: "1" })).toMatch(/RANK: "-1"/)
    expect(refusal({ RANK: "0", WORLD_SIZE: "two", MASTER_ADDR: "a", MASTER_PORT: "1" })).toMatch(
      /WORLD_SIZE: "two"/
    )
    expect(refusal({ RANK: "0", WORLD_SIZE: "2", MASTER_ADDR: "a", MASTER_PORT: "99999" })).toMatch(
      /a port from 1/
    )
    const apart = { OMPI_COMM_WORLD_LOCAL_SIZE: "1", PMIX_NAMESPACE: "1265893377" }
    expect(refusal({ OMPI_COMM_WORLD_RANK: "0", OMPI_COMM_WORLD_SIZE: "2", ...apart })).toMatch(
      /mpirun -x MASTER_ADDR/
    )
    expect(refusal({ JOB_COMPLETION_INDEX: "0" })).toMatch(/JOB_COMPLETIONS or WORLD_SIZE/)
  })

  it("is what the shipped Kubernetes job says", () => {
    const text = readFileSync(new URL("../../scenarios/cluster/train-job.yaml", import.meta.url), "utf8")
    const job = parseAllDocuments(text)[1]!
    const container = ["spec", "template", "spec", "containers", 0]
    const given = job.getIn([...container, "env"]) as { readonly toJSON: () => unknown }
    const env = given.toJSON() as ReadonlyArray<{ readonly name: string; readonly value?: string }>
    const variables = Object.fromEntries(env.map(({ name, value }) => [name, value]))
    expect(place({ ...variables, JOB_COMPLETION_INDEX: "1" })).toMatchObject({
      rank: 1,
      size: job.getIn(["spec", "completions"]),
      master: { host: "exec-train-0.exec-train", port: 29_400 },
      launcher: "Kubernetes"
    })
  })

  it.each([
    ["node1", "node1"],
    ["node[003-006,9],gpu1", "node003"],
    ["a,b", "a"],
    ["rack1-n[2,4]-ib", "rack1-n2-ib"],
    ["rack[1-2]n[03-07],x", "rack1n03"],
    ["", undefined]
  ])("the first host of %s is %s", (list, first) => {
    expect(firstHost(list)).toBe(first)
  })
})

describe("the interface that TANDEM_INTERFACE names", () => {
  const of = (address: string, family: "IPv4" | "IPv6", scopeid = 0) =>
    ({ address, family, scopeid, netmask: "", mac: "", internal: false, cidr: null }) as NetworkInterfaceInfo
  const interfaces = {
    eth0: [of("fe80::1", "IPv6", 2), of("2001:db8::1", "IPv6"), of("10.0.0.1", "IPv4")],
    eth1: [of("fe80::2", "IPv6", 3), of("2001:db8::2", "IPv6")],
    eth2: [of("fe80::3", "IPv6", 4)]
  }
  const address = (wanted?: string) =>
    Effect.runSync(Effect.result(addressIn({ TANDEM_INTERFACE: wanted }, interfaces)))

  it.each([
    [undefined, undefined],
    ["", undefined],
    ["eth0", "10.0.0.1"],
    ["eth1", "2001:db8::2"],
    ["2001:db8::1", "2001:db8::1"]
  ])("%s is %s", (wanted, own) => {
    expect(address(wanted)).toMatchObject({ _tag: "Success", success: own })
  })

  it.each(["eth2", "fe80::1", "eth9"])("%s has none that others reach", (wanted) => {
    expect(address(wanted)).toMatchObject({
      failure: { message: expect.stringMatching(/its interfaces that has one: eth0, eth1$/u) }
    })
  })
})
