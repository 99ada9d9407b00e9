// The command line of the executor; runs when imported. Only options are known here: what a command does is loaded when it is
// used, so that help appears at once.
import { main } from "./cli/main.ts"

process.exitCode = await main(process.argv)
