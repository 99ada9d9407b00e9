// Commands and options of `sim`. Only these are known here: what a command does is loaded when it is used, so that help
// appears at once.
import { Argument, type Command, InvalidArgumentError, Option } from "commander"
import type { CollectiveCommandOptions } from "./collective-command.ts"
import type { CompareCommandOptions } from "./compare-command.ts"
import type { DoctorCommandOptions } from "./doctor-command.ts"
import type { ExplainCommandOptions } from "./explain-command.ts"
import type { ImportCommandOptions } from "./import-command.ts"
import type { ImportRoutingOptions } from "./import-routing-command.ts"
import type { RunCommandOptions } from "./run-command.ts"
import type { ScheduleCommandOptions } from "./schedule-command.ts"
import type { MergeCommandOptions, StudyCommandOptions } from "./study-command.ts"
import type { ValidateCommandOptions } from "./validate-command.ts"
import {
  Ending,
  jsonOption as jsonFields,
  outputFile,
  outputFolder,
  programNamed,
  runProgram,
  setOption,
  someText,
  wholeNumber
} from "../../scenarios/cli/command-line.ts"
import { studyNames } from "../study/study-names.ts"
import { routingSources, type RoutingSource } from "../../traces/routing/sources.ts"

const shard = (value: string): { readonly index: number; readonly count: number } => {
  const match = /^(\d+)\/(\d+)$/u.exec(value)
  const index = Number(match?.[1])
  const count = Number(match?.[2])
  if (match === null || count < 1 || index > count)
    throw new InvalidArgumentError("Expected i/n, with i from 0 to n-1 or from 1 to n, such as 0/4.")
  return { index, count }
}

const jsonOption = () => jsonFields("docs/cli.md")

const list = (value: string): ReadonlyArray<string> => {
  const parts = value.split(",").map((part) => part.trim())
  if (parts.includes("")) throw new InvalidArgumentError("Expected a list such as a,b, with no part empty.")
  return parts
}

/** One number, or a list of several. */
const wholeNumbers = (value: string): number | ReadonlyArray<number> => {
  const numbers = list(value).map(wholeNumber(1))
  return numbers.length === 1 ? numbers[0]! : numbers
}

/** An option that takes a list, and is this one, as it would be typed, where it is not given. */
const listOption = (flags: string, description: string, usual: string): Option =>
  new Option(flags, `${description}, a list`).argParser(list).default(list(usual), usual)

type Action = Ending["with"]

const scenarioCommands = (sim: Command, ending: Action): void => {
  sim
    .command("run")
    .description("simulate one scenario")
    .argument("<scenario>", "scenario file (YAML or JSON)")
    .addOption(setOption())
    .addOption(jsonOption())
    .addOption(outputFile("--timeline <file>", "write the timeline for Perfetto (.json)", ".json"))
    .addOption(outputFile("--record <file>", "write the timeline (.arrow)", ".arrow"))
    .action(
      ending(async (file: string, options: RunCommandOptions) =>
        (await import("./run-command.ts")).runCommand(file, options)
      )
    )

  sim
    .command("study")
    .description("simulate every point of a study: the axes of a scenario file's study section")
    .argument("<study>", "study file (YAML or JSON)")
    .addOption(setOption())
    .addOption(
      outputFolder("--out <folder>", "write study.arrow, study.csv and report.html there", ...studyNames)
    )
    .option("--jobs <n>", "threads (default: as many as pay)", wholeNumber(1))
    .option("--shard <i/n>", "compute only this part, for sim merge", shard)
    .option("--resume", "continue what was interrupted in the same --out")
    .addOption(jsonOption())
    .action(
      ending(async (file: string, options: StudyCommandOptions) =>
        (await import("./study-command.ts")).studyCommand(file, options)
      )
    )

  sim
    .command("merge")
    .description("put the shards of a study together")
    .argument("<shard...>", "shard files of sim study --shard")
    .addOption(
      outputFolder(
        "-o, --out <folder>",
        "write study.arrow, study.csv and report.html there",
        ...studyNames
      ).makeOptionMandatory()
    )
    .addOption(jsonOption())
    .action(
      ending(async (files: ReadonlyArray<string>, options: MergeCommandOptions) =>
        (await import("./study-command.ts")).mergeCommand(files, options)
      )
    )

  sim
    .command("explain")
    .description("say why a step takes as long as it does")
    .argument("<scenario>", "scenario file")
    .addOption(setOption())
    .option("--rank <n>", "as this rank sees it (default: the one that ends last)", wholeNumber(0))
    .addOption(jsonOption())
    .action(
      ending(async (file: string, options: ExplainCommandOptions) =>
        (await import("./explain-command.ts")).explainCommand(file, options)
      )
    )

  sim
    .command("schedule")
    .description("show what the algorithm's planner decides, and what other planners would")
    .argument("<scenario>", "scenario file")
    .addOption(setOption())
    .option("--algorithms <names>", "of offloaded experts: only these, such as lru,lfu,layer-ring")
    .addOption(jsonOption())
    .action(
      ending(async (file: string, options: ScheduleCommandOptions) =>
        (await import("./schedule-command.ts")).scheduleCommand(file, options)
      )
    )
}

const collectiveCommand = (sim: Command, ending: Action): void => {
  sim
    .command("collective")
    .description("how long a collective takes on these ranks and links, by each algorithm")
    .argument("[op...]", "all_reduce (default), all_gather, reduce_scatter, all_to_all, broadcast, send_recv")
    .addOption(
      listOption(
        "--bytes <sizes>",
        "one rank's input (of a reduce_scatter its output)",
        "4KiB,64KiB,1MiB,16MiB,64MiB"
      )
    )
    .option("--ranks <n>", "how many, a list (default: 4, or as many as --ranks-per-node lists)", list)
    .option("--ranks-per-node <n>", "ranks of every node; or a list: of each node of a site", wholeNumbers, 1)
    .option("--sites <n>", "sites that the ranks are divided over", wholeNumber(1), 1)
    .addOption(listOption("--algorithm <names>", "how it is laid out", "ring,tree,hierarchical,direct"))
    .addOption(listOption("--inter <bandwidth>", "of every node's network interface", "unlimited"))
    .addOption(listOption("--inter-latency <time>", "one way", "0s"))
    .option("--intra <bandwidth>", "of every rank's port inside its node", "unlimited")
    .option("--intra-latency <time>", "one way", "0s")
    .option("--wan <bandwidth>", "of every site's uplink; unlimited where only its latency is given")
    .option("--wan-latency <time>", "one way")
    .option("--inter-window <size>", "most bytes of one rank's to another on the way between nodes")
    .option("--wan-window <size>", "the same between sites")
    .option(
      "--chunk <size>",
      "of rings, how much goes around at a time (NCCL: half of NCCL_BUFFSIZE a channel)"
    )
    .option(
      "--mtu <bytes>",
      "largest packet of TCP between nodes: its headers take their share",
      wholeNumber(576)
    )
    .option("--measured <profiles>", "what the software takes where no link is in the way, a list", list)
    .option("--compare <link>", "with --measured: show its rows of that link beside, such as 10gbit")
    .addOption(outputFile("--csv <file>", "write all rows (.csv)", ".csv"))
    .addOption(jsonOption())
    .action(
      ending(async (ops: ReadonlyArray<string>, options: CollectiveCommandOptions) =>
        (await import("./collective-command.ts")).collectiveCommand(
          ops.length === 0 ? ["all_reduce"] : ops,
          options
        )
      )
    )
}

const resultCommands = (sim: Command, ending: Action): void => {
  sim
    .command("validate")
    .description("hold the simulator to published tables and to measurements, number by number")
    .argument(
      "[section...]",
      "sections to check (default: all but the slow ones, which are named at the end)"
    )
    .addOption(jsonOption())
    .action(
      ending(async (names: ReadonlyArray<string>, options: ValidateCommandOptions) =>
        (await import("./validate-command.ts")).validateCommand(names, options)
      )
    )

  sim
    .command("compare")
    .description(
      "show results side by side: scenarios, results, studies, or one scenario and --set alternatives"
    )
    .argument("<file...>", "scenario files, saved --json results or study.arrow files")
    .addOption(
      setOption(
        "with one file: an alternative (fields joined by ;); with several: a change to all (repeatable)"
      )
    )
    .addOption(jsonOption())
    .action(
      ending(async (files: ReadonlyArray<string>, options: CompareCommandOptions) =>
        (await import("./compare-command.ts")).compareCommand(files, options)
      )
    )
}

const importOptions = (command: Command): Command =>
  command
    .addOption(outputFile("-o, --out <file>", "profile to write (.arrow)", ".arrow").makeOptionMandatory())
    .option("--name <text>", "name of the profile (default: of the file)", someText)
    .option("--device <text>", "device it was measured on", someText)
    .option("--conditions <text>", "conditions of the measurement, for reports", someText)
    .addOption(jsonOption())

const fileCommands = (sim: Command, ending: Action): void => {
  const importer = sim.command("import").description("make a profile of another tool's measurements")

  importOptions(importer.command("kineto"))
    .description("a torch.profiler trace, or those of several ranks of one job")
    .argument("<trace...>", "trace files (.json or .json.gz)")
    .option("--step-time <time>", "step time without the profiler, such as 40.4ms")
    .option("--ddp <trace>", "the same model under DDP: what its hooks and calls cost the host")
    .option("--ddp-step-time <time>", "step time of that run without the profiler")
    .addOption(new Option("--timestamps <unit>", "unit of times in the trace").choices(["auto", "us", "ns"]))
    .action(
      ending(async (files: [string, ...Array<string>], options: ImportCommandOptions) =>
        (await import("./import-command.ts")).importCommand("kineto", files, options)
      )
    )

  importOptions(importer.command("nccl-tests"))
    .description("the text output of a nccl-tests program")
    .argument("<text>", "output file")
    .option("--op <name>", "which test it was, where the text does not say", someText)
    .option("--ranks <n>", "number of ranks, where the text does not say", wholeNumber(1))
    .option("--in-place", "take the in-place times")
    .option("--link <text>", "how the links were limited (default: unshaped)", someText)
    .action(
      ending(async (file: string, options: ImportCommandOptions) =>
        (await import("./import-command.ts")).importCommand("nccl-tests", [file], options)
      )
    )

  importer
    .command("routing")
    .description("which experts the tokens of a mixture-of-experts model chose")
    .addArgument(new Argument("<source>", "tool that recorded it").choices(routingSources))
    .argument(
      "<file...>",
      "recordings; of several, requests one after the other (docs/formats.md says the forms)"
    )
    .addOption(outputFile("-o, --out <file>", "routing to write (.arrow)", ".arrow").makeOptionMandatory())
    .option("--prompt-tokens <n>", "tokens at the beginning that are one step, the prefill", wholeNumber(1))
    .option("--top-k <n>", "experts of a token, where the recording does not say", wholeNumber(1))
    .option("--keep-warmup", "keep long runs of tokens that chose the same at every layer")
    .addOption(jsonOption())
    .action(
      ending(
        async (source: RoutingSource, files: [string, ...Array<string>], options: ImportRoutingOptions) =>
          (await import("./import-routing-command.ts")).importRoutingCommand(source, files, options)
      )
    )

  importOptions(importer.command("csv"))
    .description("a table of op or collective timings")
    .argument("<csv>", "table file")
    .option("--op <name>", "which collective it was, where the table does not say", someText)
    .option("--ranks <n>", "number of ranks, where the table does not say", wholeNumber(1))
    .option("--link <text>", "how the links were limited, where the table does not say", someText)
    .action(
      ending(async (file: string, options: ImportCommandOptions) =>
        (await import("./import-command.ts")).importCommand("csv", [file], options)
      )
    )

  sim
    .command("doctor")
    .description("say what a file is, what is in it, what can be done with it, and what it lacks")
    .argument("<file>", "any file")
    .addOption(jsonOption())
    .action(
      ending(async (file: string, options: DoctorCommandOptions) =>
        (await import("./doctor-command.ts")).doctorCommand(file, options)
      )
    )
}

/** All commands; `ended` has the exit code of the one that was run. */
export const simProgram = (ended: Ending): Command => {
  const sim = programNamed(
    "sim",
    "What would training cost on your links? A simulator driven by profiles of real runs."
  ).addHelpText(
    "after",
    `
Examples:
  sim import kineto trace.json.gz -o gpt2.arrow --step-time 40.4ms
  sim run scenarios/geo-gpt2.yaml --set wan.bandwidth=10Gbit/s
  sim study scenarios/geo-gpt2-bandwidth.yaml --out out/
  sim explain scenarios/geo-gpt2.yaml --set algorithm=ddp`
  )
  scenarioCommands(sim, ended.with)
  collectiveCommand(sim, ended.with)
  resultCommands(sim, ended.with)
  fileCommands(sim, ended.with)
  return sim
}

/** The exit code of a command line. */
export const main = (argv: ReadonlyArray<string>): Promise<number> => {
  const ended = new Ending("sim")
  return runProgram(simProgram(ended), ended, argv)
}
