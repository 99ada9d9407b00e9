// Runs a command's effect to its exit code: 0, 1 when the result says no, 2 for bad input, 70 for a defect of this
// program, 128 and its number after a signal (130: Ctrl-C). Every command ends here, so that every error looks alike.
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { offerOut, OutputError, writeError, writeOut } from "./output.ts"

/** What a command prints to standard output, and whether its result is a yes. */
export interface Outcome {
  readonly text: string
  readonly ok: boolean
}

export const said = (text: string): Outcome => ({ text, ok: true })

/** The outcome, once its files are written: where one cannot be, what was found out is told before that is. */
export const toldThough = <E, R>(
  outcome: Outcome,
  files: Effect.Effect<unknown, E, R>
): Effect.Effect<Outcome, E, R> =>
  Effect.as(
    Effect.tapError(files, () => Effect.sync(() => offerOut(outcome.text))),
    outcome
  )

export const json = (value: unknown): string => `${JSON.stringify(value, undefined, 2)}\n`

/** Errors by their tag that are not the input's fault: the simulation itself came to no end. */
const refusals = new Set([
  "Deadlock",
  "OutOfMemory",
  "CollectiveMismatch",
  "DeviceFault",
  "RankLost",
  "NoRendezvous"
])

/**
 * A launcher's or a terminal's signal comes to a whole group of processes, and npx, say, passes its own on to this one: what comes
 * so soon after the first is the first once more. Assumed: longer than passing one on takes, shorter than who waits stays patient.
 */
const onceMoreMillis = 1000

/**
 * Signals interrupt the effect, which then has its finalizers to keep what is finished; a second one, a second later or more, ends
 * the process. `tell` gets why it has failed.
 */
export const execute = async (
  command: Effect.Effect<Outcome, Error>,
  program = "sim",
  tell: (text: string) => void = writeError
): Promise<number> => {
  let signalled: NodeJS.Signals | undefined
  let signalledAt = 0
  let interrupt = (): void => {}
  const onSignal = (signal: NodeJS.Signals): void => {
    if (signalled !== undefined) {
      if (performance.now() - signalledAt < onceMoreMillis) return
      process.exit(signalCodes[signal] ?? 1)
    }
    signalled = signal
    signalledAt = performance.now()
    interrupt()
  }
  // Before anything runs: what comes while it runs without a pause is heard at its first.
  const signals = Object.keys(signalCodes) as Array<NodeJS.Signals>
  for (const signal of signals) process.on(signal, onSignal)
  const fiber = Effect.runFork(command)
  interrupt = () => {
    Effect.runFork(Fiber.interrupt(fiber))
  }
  const exit = await Effect.runPromise(Fiber.await(fiber))
  // A signal that came in the last stretch of work is heard in the next turn of the event loop.
  await Effect.runPromise(Effect.yieldNow)
  for (const signal of signals) process.off(signal, onSignal)
  if (signalled !== undefined) return signalCodes[signalled] ?? 1
  return Exit.isSuccess(exit) ? print(exit.value, program) : report(exit.cause, program, tell)
}

const signalCodes: Partial<Record<NodeJS.Signals, number>> = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 }

const print = ({ text, ok }: Outcome, program: string): number => {
  try {
    writeOut(text)
  } catch (cause) {
    return outputFailure(cause, program)
  }
  return ok ? 0 : 1
}

/** A reader that has seen enough is no failure; a full disk is. */
const outputFailure = (cause: unknown, program: string): number => {
  if (!(cause instanceof OutputError)) return defect(cause, program)
  if (cause.code === "EPIPE") return 0
  writeError(`${program}: ${cause.message}: expected a file or pipe with space\n`)
  return 2
}

const report = (cause: Cause.Cause<Error>, program: string, tell: (text: string) => void): number => {
  const failure = cause.reasons.find(Cause.isFailReason)?.error
  if (failure === undefined) return defect(Cause.squash(cause), program)
  tell(
    failure.message
      .split("\n")
      .map((line) => `${program}: ${line}\n`)
      .join("")
  )
  return refusals.has(failure.name) ? 1 : 2
}

const defect = (cause: unknown, program: string): number => {
  const debug = `${program.toUpperCase()}_DEBUG`
  const what = cause instanceof Error ? `${cause.name}: ${cause.message}` : String(cause)
  const line = what.split("\n", 1)[0] ?? what
  writeError(
    `${program}: an error in tandem itself: ${line}. Please report it with the command and its files; ${debug}=1 shows where.\n`
  )
  if ((process.env[debug] ?? "") !== "" && cause instanceof Error) writeError(`${cause.stack}\n`)
  return 70
}
