// What the command lines of `sim` and `exec` share: how a program describes itself and refuses, options that several commands
// have, and the exit code that everything ends with. Knows no command.
import { Command, CommanderError, InvalidArgumentError, Option } from "commander"
import { statSync } from "node:fs"
import { messageOf } from "../../core/message-of.ts"
import { OutputError, writeError, writeOut } from "./output.ts"
import { version } from "./version.ts"

const badInput = 2
const ownDefect = 70

/** Values of an option that may be given several times. */
const collect = (value: string, before: ReadonlyArray<string>): ReadonlyArray<string> => [...before, value]

export const wholeNumber =
  (least: number) =>
  (value: string): number => {
    const number = Number(value)
    if (!/^\d+$/u.test(value) || number < least)
      throw new InvalidArgumentError(`Expected a whole number, at least ${least}.`)
    return number
  }

/** A name or a word about something: of nothing but spaces it would be taken for one that was given. */
export const someText = (value: string): string => {
  if (value.trim() === "") throw new InvalidArgumentError("Expected text that is not empty.")
  return value
}

/** A file to write, whose name says what will be in it. A pipe or a device may be called anything; a folder is refused elsewhere. */
export const fileNamed =
  (...endings: ReadonlyArray<`.${string}`>) =>
  (value: string): string => {
    const there = statSync(value, { throwIfNoEntry: false })
    if (!endings.some((ending) => value.endsWith(ending)) && (there === undefined || there.isFile()))
      throw new InvalidArgumentError(`Expected a name that ends in ${endings.join(" or ")}.`)
    return value
  }

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

/** Keeps the exit code of the command that runs. */
export class Ending {
  exitCode = 0

  /** An action that ends with the exit code of its command. */
  readonly with =
    <Args extends ReadonlyArray<unknown>>(action: (...args: Args) => Promise<number>) =>
    async (...args: Args): Promise<void> => {
      this.exitCode = await action(...args)
    }
}

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
