// Commands and options of `exec`, and their exit codes: 0, 1 when the result says no, 2 for bad input, 70 for a defect.
import { Command, CommanderError, InvalidArgumentError, Option } from "commander"
import { writeError } from "../../sim/cli/output.ts"
import { version } from "../../sim/cli/version.ts"
import type { AgreeCommandOptions } from "./agree-command.ts"
import type { BenchCommandOptions } from "./bench-command.ts"
import type { GenerateCommandOptions } from "./generate-command.ts"
import type { InfoCommandOptions } from "./info-command.ts"
import type { ProfileCommandOptions } from "./profile-command.ts"
import type { TrainCommandOptions } from "./train-command.ts"

const badInput = 2
const ownDefect = 70

const collect = (value: string, before: ReadonlyArray<string>): ReadonlyArray<string> => [...before, value]

const wholeNumber =
  (least: number) =>
  (value: string): number => {
    const number = Number(value)
    if (!/^\d+$/u.test(value) || number < least)
      throw new InvalidArgumentError(`Expected a whole number, at least ${least}.`)
    return number
  }

const setOption = () =>
  new Option("--set <path=value>", "change a field: its path, or the end of it (repeatable)")
    .argParser(collect)
    .default([], "none")
const jsonOption = () => new Option("--json", "print the result as JSON (fields: docs/exec.md)")

/** The exit code of a command line. */
export const main = async (argv: ReadonlyArray<string>): Promise<number> => {
  let exitCode = 0
  /** An action that ends with the exit code of its command. */
  const ending =
    <Args extends ReadonlyArray<unknown>>(action: (...args: Args) => Promise<number>) =>
    async (...args: Args): Promise<void> => {
      exitCode = await action(...args)
    }

  const exec = new Command("exec")
    .description("Runs the programs that sim simulates, for real: on processor threads, in one process.")
    .version(version(), "-V, --version", "print the version")
    .exitOverride()
    .enablePositionalOptions()
    .helpCommand(false)
    .showHelpAfterError(false)
    .configureOutput({ writeErr: (text) => writeError(text.replace(/^error: /u, "exec: ")) })
    .addHelpText(
      "after",
      `
Examples:
  exec info
  exec train scenarios/train-tiny.yaml --set algorithm=diloco
  exec profile scenarios/train-tiny.yaml -o tiny.arrow
  exec generate scenarios/agree/expert-offload.yaml --verify
  exec generate scenarios/serve-tiny.yaml --weights tiny.arrow
  exec agree scenarios/agree/data-parallel.yaml --timeline both.json`
    )

  exec
    .command("info")
    .description("what this machine and this build can run, and how to get what is missing")
    .addOption(jsonOption())
    .action(
      ending(async (options: InfoCommandOptions) => (await import("./info-command.ts")).infoCommand(options))
    )

  exec
    .command("train")
    .description("train the scenario's model with its algorithm")
    .argument("<scenario>", "scenario file (YAML or JSON) whose model is an architecture")
    .addOption(setOption())
    .option("--steps <n>", "steps to train (default: the scenario's)", wholeNumber(1))
    .option(
      "--text <file>",
      "text to learn, a token for each character (default: the scenario's, or the one that ships)"
    )
    .option("--seed <n>", "of initial parameters and batches (default: the scenario's)", wholeNumber(0))
    .option(
      "--evaluate-every <n>",
      "steps between evaluations on held-out text (default: at the end)",
      wholeNumber(1)
    )
    .option("--plan-from <profile>", "plan with the layer times of this profile instead of estimates")
    .option("-o, --out <file>", "write the result as JSON; Ctrl-C writes what is done by then")
    .option("--timeline <file>", "write the timeline for Perfetto (JSON)")
    .option("--save <file>", "write what rank 0 has learnt, for exec generate --weights (.arrow)")
    .addOption(jsonOption())
    .action(
      ending(async (file: string, options: TrainCommandOptions) =>
        (await import("./train-command.ts")).trainCommand(file, options)
      )
    )

  exec
    .command("profile")
    .description("measure the scenario's layers and collectives on this machine, for sim")
    .argument("<scenario>", "scenario file (YAML or JSON) whose model is an architecture")
    .requiredOption("-o, --out <file>", "profile to write (.arrow)")
    .addOption(setOption())
    .option("--steps <n>", "steps to measure, after two that are not", wholeNumber(1), 10)
    .addOption(jsonOption())
    .action(
      ending(async (file: string, options: ProfileCommandOptions) =>
        (await import("./profile-command.ts")).profileCommand(file, options)
      )
    )

  exec
    .command("generate")
    .description(
      "generate tokens with offloaded experts or a compressed key/value cache, with random or trained weights"
    )
    .argument("<scenario>", "scenario file (YAML or JSON) of the task expert-offload or kv-serving")
    .addOption(setOption())
    .option("--weights <file>", "serve with weights that exec train --save wrote (default: random ones)")
    .option(
      "--text <file>",
      "text that was learnt; prompts are of its held-out end (default: the one that ships)"
    )
    .option("--verify", "exit with 1 unless the output is that with all experts on the device")
    .addOption(jsonOption())
    .action(
      ending(async (file: string, options: GenerateCommandOptions) =>
        (await import("./generate-command.ts")).generateCommand(file, options)
      )
    )

  exec
    .command("bench")
    .description("time kernels, copies, collectives and the submission of ops")
    .option("--ranks <n>", "ranks of the collectives", wholeNumber(2), 2)
    .addOption(jsonOption())
    .action(
      ending(async (options: BenchCommandOptions) =>
        (await import("./bench-command.ts")).benchCommand(options)
      )
    )

  exec
    .command("agree")
    .description("run a scenario on both machines and compare decisions, values, order and time")
    .argument("<scenario>", "scenario file (YAML or JSON)")
    .addOption(setOption())
    .option("--emulate-device", "kernels take at least what the scenario's device needs, by its peak rates")
    .option("--timeline <file>", "write both timelines into one file for Perfetto (JSON)")
    .addOption(jsonOption())
    .action(
      ending(async (file: string, options: AgreeCommandOptions) =>
        (await import("./agree-command.ts")).agreeCommand(file, options)
      )
    )

  try {
    await exec.parseAsync(argv)
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : badInput
    // Not an error of the input: those end as exit codes. One line, and no stack, for the person in front.
    writeError(
      `exec: an error in tandem itself: ${error instanceof Error ? error.message : String(error)}. Please report it.\n`
    )
    return ownDefect
  }
  return exitCode
}
