// What the command lines of `sim` and `exec` share: how a program describes itself and refuses, options that several commands
// have, and the exit code that everything ends with. Knows no command.
import { Command, CommanderError, InvalidArgumentError, Option } from "commander"
import { messageOf } from "../../core/message-of.ts"
import { statOf } from "../../traces/stat-of.ts"
import { OutputError, writeError, writeOut } from "./output.ts"
import { version } from "./version.ts"

const badInput = 2
const ownDefect = 70

/** Values of an option that may be given several times. */
const collect = (value: string, before: ReadonlyArray<string>): ReadonlyArray<string> => [...before, value]

/** `most`: beyond what it is by default, numbers are not told apart. */
export const wholeNumber =
  (least: number, most = Number.MAX_SAFE_INTEGER) =>
  (value: string): number => {
    const number = Number(value)
    if (!/^\d+$/u.test(value) || number < least || number > most) {
      const accepted = number > most ? `from ${least} to ${most}` : `at least ${least}`
      throw new InvalidArgumentError(`Expected a whole number, ${accepted}.`)
    }
    return number
  }

/** A name or a word about something: of nothing but spaces it would be taken for one that was given. */
export const someText = (value: string): string => {
  if (value.trim() === "") throw new InvalidArgumentError("Expected text that is not empty.")
  return value
}

/** A name that says what will be in the file. A pipe or a device may be called anything; a folder is refused elsewhere. */
const fileNamed =
  (...endings: ReadonlyArray<`.${string}`>) =>
  (value: string): string => {
    const there = statOf(value)
    if (!endings.some((ending) => value.endsWith(ending)) && (there === undefined || there.isFile()))
      throw new InvalidArgumentError(`Expected a name that ends in ${endings.join(" or ")}.`)
    return value
  }

/** What an option names is written. `Ending` looks, before its command begins, whether that can be. */
export class OutputOption extends Option {
  readonly writes: "file" | "folder"
  /** What files in a folder are called, where that is known by the option alone. */
  readonly files: ReadonlyArray<string>
  constructor(
    writes: "file" | "folder",
    flags: string,
    description: string,
    files: ReadonlyArray<string> = []
  ) {
    super(flags, description)
    this.writes = writes
    this.files = files
  }
}

/** A file to write, whose name ends in one of `endings`. */
export const outputFile = (flags: string, description: string, ...endings: ReadonlyArray<`.${string}`>) =>
  new OutputOption("file", flags, description).argParser(fileNamed(...endings))

/** A folder to write to, which is made where it is not there, and what files in it are called. */
export const outputFolder = (flags: string, description: string, ...files: ReadonlyArray<string>) =>
  new OutputOption("folder", flags, description, files).argParser(someText)

export const setOption = (description = "change a field: its path, or the end of it (repeatable)") =>
  new Option("--set <path=value>", description).argParser(collect).default([], "none")

/** @param page where the fields are documented */
export const jsonOption = (page: string) => new Option("--json", `print the result as JSON (fields: ${page})`)

/** A program whose messages begin with its name. */
export const programNamed = (name: string, description: string): Command =>
  new Command(name)
    .description(description)
    .version(version(), "-V, --version", "print the version")
    .exitOverride()
    .enablePositionalOptions()
    .helpCommand(false)
    .showHelpAfterError(false)
    .configureOutput({
      writeOut: writeHelp,
      writeErr: (text) => writeError(text.replace(/^error: /u, `${name}: `))
    })

/** To a reader that may have seen enough. */
const writeHelp = (text: string): void => {
  try {
    writeOut(text)
  } catch (cause) {
    if (!(cause instanceof OutputError && cause.code === "EPIPE")) throw cause
  }
}

/** Whether this process is to write what its command line names; of a job's processes one is. */
type Writes = () => Promise<boolean>

/** How commands end: with an exit code, and before they begin where what they are to write could not be. */
export class Ending {
  exitCode = 0
  readonly #program: string
  readonly #writes: Writes

  constructor(program: string, writes: Writes = () => Promise.resolve(true)) {
    this.#program = program
    this.#writes = writes
  }

  /** An action that ends with the exit code of its command. */
  readonly with =
    <Args extends ReadonlyArray<unknown>>(action: (...args: Args) => Promise<number>) =>
    async (...args: Args): Promise<void> => {
      const refused = await this.#refused(args.at(-1))
      this.exitCode = refused === 0 ? await action(...args) : refused
    }

  /** `command`: the last that commander hands to an action. */
  async #refused(command: unknown): Promise<number> {
    const outputs = command instanceof Command ? outputsOf(command) : []
    if (outputs.length === 0 || !(await this.#writes())) return 0
    const [{ requireOutputs }, { execute, said }, { as }] = await Promise.all([
      import("./outputs.ts"),
      import("./execute.ts"),
      import("effect/Effect")
    ])
    return execute(as(requireOutputs(outputs), said("")), this.#program)
  }
}

/** What was named to be written, by the option that names it. */
const outputsOf = (command: Command) =>
  command.options.flatMap((option) => {
    const place: unknown = command.opts()[option.attributeName()]
    return option instanceof OutputOption && typeof place === "string"
      ? [{ option: option.long ?? option.flags, place, writes: option.writes, files: option.files }]
      : []
  })

/** Runs the command that `argv` names, of this process by default; the exit code. */
export const runProgram = async (
  program: Command,
  ending: Ending,
  argv?: ReadonlyArray<string>
): Promise<number> => {
  try {
    await program.parseAsync(argv)
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : badInput
    // Not an error of the input: those end as exit codes. One line, and no stack, for the person in front.
    writeError(`${program.name()}: an error in tandem itself: ${messageOf(error)}. Please report it.\n`)
    return ownDefect
  }
  return ending.exitCode
}
