// A run that is killed in the middle of a step goes on from its last checkpoint, and ends with what it would have had at its end,
// on every rank, to the bit: parameters, moments, outer optimizers, pseudo-gradients and gradients on their way.
import { spawn } from "node:child_process"
import { mkdtempSync, readdirSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import * as path from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { afterAll, beforeAll, expect, it } from "vitest"
import { describeNative } from "../native/addon.ts"
import { endsWithParent } from "../setup/ends-with-parent.ts"
import { manifestIn, newest, stateIn, trained, variants, whole } from "./training.ts"

const folder = mkdtempSync(path.join(tmpdir(), "killed-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const stepsAsked = 400

describeNative("a killed run goes on from its last checkpoint", () => {
  beforeAll(async () => {
    const script = path.join(import.meta.dirname, "begun.ts")
    const child = spawn(process.execPath, [script, folder, String(stepsAsked)], {
      env: endsWithParent,
      stdio: "inherit"
    })
    const ended = new Promise<NodeJS.Signals | null>((resolve) =>
      child.on("close", (_, signal) => resolve(signal))
    )
    const names = Object.keys(variants)
    const least = () => Math.min(...names.map((name) => newest(path.join(folder, name))?.step ?? 0))
    while (child.exitCode === null && least() < 6) await sleep(10)
    child.kill("SIGKILL")
    expect(await ended).toBe("SIGKILL")
  })

  it.each(Object.keys(variants))("%s", async (name) => {
    const own = path.join(folder, name)
    const { step, folder: last } = newest(own)!
    expect(step).toBeLessThan(stepsAsked)
    const { data, random, ranks, shards } = await manifestIn(last)
    expect([data.position, random.position, shards.length]).toEqual([step, step, ranks])
    const steps = 2 * step
    const rest = await trained(name, { steps, checkpoint: own, checkpointEvery: steps, resume: true })
    const uninterrupted = await whole(name, steps, path.join(folder, "whole"))
    expect(rest.learnt.stepsDone).toBe(steps)
    expect(rest.learnt.losses).toEqual(uninterrupted.learnt.losses.slice(step))
    expect(rest.learnt.losses.length).toBe(step)
    expect(await stateIn(own)).toEqual(uninterrupted.state)
    expect(uninterrupted.state).toHaveLength(ranks)
    // What was half written when it was killed is gone, and no more is kept than was asked for.
    expect(readdirSync(own).filter((one) => one.startsWith("."))).toEqual([])
    expect(readdirSync(own).length).toBeLessThanOrEqual(2)
  })
})
