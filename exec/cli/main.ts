// Commands and options of `exec`, and their exit codes: 0, 1 when the result says no, 2 for bad input, 70 for a defect. What a
// command does is loaded when it is used, so that help appears at once.
import { type Command, Option } from "commander"
import { mostPositive, mostRanks } from "../../core/bounds.ts"
import {
  Ending,
  jsonOption as jsonFields,
  outputFile,
  outputFolder,
  programNamed,
  runProgram,
  setOption,
  wholeNumber
} from "../../scenarios/cli/command-line.ts"
import { transports, usualRendezvousTimeout } from "../job/meeting.ts"
import { recordNames } from "../../scenarios/cli/record/files.ts"
import type { AgreeCommandOptions } from "./agree-command.ts"
import type { BenchCommandOptions } from "./bench-command.ts"
import type { GenerateCommandOptions } from "./generate-command.ts"
import type { InfoCommandOptions } from "./info-command.ts"
import type { ProfileCommandOptions } from "./profile-command.ts"
import type { TrainCommandOptions } from "./train-command.ts"

const jsonOption = () => jsonFields("docs/exec.md")
const backendOption = () =>
  new Option(
    "--backend <name>",
    "what to run on: cpu, cuda, or auto, which takes a GPU where there is one"
  ).default("auto")

const emulateOption = () =>
  new Option("--emulate-device", "kernels take at least what the scenario's device needs, by its peak rates")
const processesOption = () =>
  new Option("--processes <n>", "start so many processes on this host, one for each rank").argParser(
    wholeNumber(2)
  )
const transportOption = () =>
  new Option(
    "--transport <name>",
    "what carries messages between processes: auto is memory between ranks of one host, and to others UCX where it has RDMA between all ranks, else TCP (default: TANDEM_TRANSPORT, else auto)"
  ).choices(transports)
const rendezvousOption = () =>
  new Option(
    "--rendezvous-timeout <seconds>",
    `how long to wait for the job's other processes (default: ${usualRendezvousTimeout})`
  ).argParser(wholeNumber(1))

/** What a command that runs a scenario's ranks is told of where they run. */
const onRanks = (command: Command): Command =>
  command
    .addOption(backendOption())
    .addOption(processesOption())
    .addOption(transportOption())
    .addOption(rendezvousOption())

/** All commands; `ended` has the exit code of the one that was run. */
export const execProgram = (ended: Ending): Command => {
  const ending = ended.with

  const exec = programNamed(
    "exec",
    "Runs the programs that sim simulates, for real: on processor threads or NVIDIA GPUs, in one process or one for each rank."
  ).addHelpText(
    "after",
    `
Examples:
  exec info
  exec train scenarios/train-tiny.yaml --set algorithm=diloco
  exec train scenarios/train-tiny.yaml --processes 4
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

  onRanks(
    exec
      .command("train")
      .description("train the scenario's model with its algorithm")
      .argument("<scenario>", "scenario file (YAML or JSON) whose model is an architecture")
      .addOption(setOption())
      .option("--steps <n>", "steps to train (default: the scenario's)", wholeNumber(1, mostPositive))
      .option(
        "--text <file>",
        "text to learn, a token for each character (default: the scenario's, or the one that ships)"
      )
      .option("--tokens <files>", "files of tokens to learn instead (.bin); quote a pattern with stars")
      .option("--held-out-tokens <files>", "files of tokens to evaluate on (default: the end of --tokens)")
      .option("--seed <n>", "of initial parameters and batches (default: the scenario's)", wholeNumber(0))
      .option(
        "--evaluate-every <n>",
        "steps between evaluations on held-out text (default: at the end)",
        wholeNumber(1)
      )
      .option(
        "--weights <file>",
        "begin with what exec train --save wrote, instead of random weights (.arrow, .safetensors)"
      )
      .option("--plan-from <profile>", "plan with the layer times of this profile instead of estimates")
      .addOption(
        outputFile(
          "-o, --out <file>",
          "write the result (.json); Ctrl-C writes what is done by then",
          ".json"
        )
      )
      .addOption(outputFile("--timeline <file>", "write the timeline for Perfetto (.json)", ".json"))
      .addOption(
        outputFile(
          "--save <file>",
          "write what rank 0 has learnt, for exec generate --weights (.arrow, .safetensors)",
          ".arrow",
          ".safetensors"
        )
      )
      .addOption(
        outputFolder(
          "--checkpoint <folder>",
          "keep checkpoints there, at the last step and on SIGTERM or Ctrl-C too; see docs/checkpoints.md"
        )
      )
      .option("--checkpoint-every <n>", "steps from one to the next (default: 100)", wholeNumber(1))
      .option("--keep <n>", "how many of the newest checkpoints stay (default: 2)", wholeNumber(1))
      .option(
        "--resume [checkpoint]",
        "go on from the newest of --checkpoint, if there is one, or from this one"
      )
  )
    .addOption(jsonOption())
    .action(
      ending(async (file: string, options: TrainCommandOptions) =>
        (await import("./train-command.ts")).trainCommand(file, options)
      )
    )

  onRanks(
    exec
      .command("profile")
      .description("measure the scenario's layers and collectives on this machine, for sim")
      .argument("<scenario>", "scenario file (YAML or JSON) whose model is an architecture")
      .addOption(outputFile("-o, --out <file>", "profile to write (.arrow)", ".arrow").makeOptionMandatory())
      .addOption(setOption())
      .option("--steps <n>", "steps to measure, after two that are not", wholeNumber(1, mostPositive), 10)
      .addOption(emulateOption())
  )
    .addOption(jsonOption())
    .action(
      ending(async (file: string, options: ProfileCommandOptions) =>
        (await import("./profile-command.ts")).profileCommand(file, options)
      )
    )

  onRanks(
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
  )
    .addOption(jsonOption())
    .action(
      ending(async (file: string, options: GenerateCommandOptions) =>
        (await import("./generate-command.ts")).generateCommand(file, options)
      )
    )

  exec
    .command("bench")
    .description("time kernels, copies, collectives and the submission of ops")
    .option("--ranks <n>", "ranks of the collectives", wholeNumber(2, mostRanks), 2)
    .addOption(outputFile("-o, --out <file>", "write them as a profile that drives sim (.arrow)", ".arrow"))
    .addOption(backendOption())
    .addOption(jsonOption())
    .action(
      ending(async (options: BenchCommandOptions) =>
        (await import("./bench-command.ts")).benchCommand(options)
      )
    )

  onRanks(
    exec
      .command("agree")
      .description("run a scenario on both machines and compare decisions, values, order and time")
      .argument("<scenario>", "scenario file (YAML or JSON)")
      .addOption(setOption())
      .addOption(emulateOption())
      .addOption(
        outputFile("--timeline <file>", "write both timelines into one file for Perfetto (.json)", ".json")
      )
      .addOption(
        outputFolder("--record <folder>", "keep the real run there, to be compared elsewhere", ...recordNames)
      )
      .option("--from <folder>", "compare a real run that --record has kept, instead of running")
  )
    .addOption(jsonOption())
    .action(
      ending(async (file: string, options: AgreeCommandOptions) =>
        (await import("./agree-command.ts")).agreeCommand(file, options)
      )
    )

  return exec
}

/** Of a job of processes, rank 0 writes. Where a place is said wrongly, whoever needs it says so. */
const writesHere = async (): Promise<boolean> => {
  const Effect = await import("effect/Effect")
  const { placeIn } = await import("../job/environment.ts")
  const place = await Effect.runPromise(Effect.orElseSucceed(placeIn(process.env), () => undefined))
  return place === undefined || place.rank === 0
}

/** The exit code of a command line. */
export const main = async (argv: ReadonlyArray<string>): Promise<number> => {
  // Before all that takes time: nothing wakes who is stopped sooner.
  if (process.env["TANDEM_SECRET_FD"] !== undefined) (await import("../job/lifeline.ts")).heedLifeline()
  const ended = new Ending("exec", writesHere)
  return runProgram(execProgram(ended), ended, argv)
}
