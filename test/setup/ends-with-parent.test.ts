// A process that a test starts ends when the test's is killed, which has no time to end it.
import { spawn } from "node:child_process"
import { expect, it } from "vitest"
import { endsWithParent } from "./ends-with-parent.ts"

it("a process ends when the one that started it is killed", async () => {
  // Ends by itself at last, so that this test leaves nothing behind either.
  const child = "console.log('under way'); setTimeout(() => {}, 50_000)"
  const parent = `require("node:child_process").spawn(process.execPath, ["-e", ${JSON.stringify(child)}], { stdio: "inherit" });
    setTimeout(() => {}, 50_000)`
  const started = spawn(process.execPath, ["-e", parent], {
    env: endsWithParent,
    stdio: ["ignore", "pipe", "inherit"]
  })
  await new Promise((resolve) => started.stdout.once("data", resolve))
  const before = performance.now()
  started.kill("SIGKILL")
  // Both hold the pipe.
  await new Promise((resolve) => started.on("close", resolve))
  expect(performance.now() - before).toBeLessThan(20_000)
})
