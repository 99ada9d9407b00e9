// sim doctor knows every file that something here reads, and says of others what they are.
import * as Effect from "effect/Effect"
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { gzipSync } from "node:zlib"
import { afterAll, describe, expect, it } from "vitest"
import { diagnose } from "../../traces/index.ts"

const folder = mkdtempSync(join(tmpdir(), "tandem-doctor-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const root = fileURLToPath(new URL("../../", import.meta.url))

const of = (file: string) => Effect.runPromise(diagnose(join(root, file)))
const ofText = (name: string, content: string | Uint8Array) => {
  writeFileSync(join(folder, name), content)
  return Effect.runPromise(diagnose(join(folder, name)))
}

describe("the diagnosis", () => {
  it.each([
    ["test/fixtures/import/00-reference.json", "kineto"],
    ["test/fixtures/import/nccl-a-launcher-prefix.txt", "nccl-tests"],
    ["traces/tables/nccl-h200-sockets.csv", "csv"],
    ["test/fixtures/import/req-a-seconds.jsonl", "requests"],
    ["test/fixtures/import/routing-a-mtp.jsonl", "routing"],
    ["traces/profiles/resnet18-h200.arrow", "profile"],
    ["scenarios/geo-gpt2.yaml", "scenario"]
  ])("of %s is that it is a %s, with what can be done with it", async (file, kind) => {
    const { readable, uses, ...rest } = await of(file)
    expect([rest.kind, readable]).toEqual([kind, true])
    expect(uses.length).toBeGreaterThan(0)
  })

  it("of a folder of requests is that they are one trace", async () => {
    const within = join(folder, "requests")
    mkdirSync(within)
    expect(await Effect.runPromise(diagnose(within))).toMatchObject({ kind: "folder", readable: false })
    for (const [name, time] of [
      ["b.csv", 9],
      ["a.csv", 2]
    ] as const)
      writeFileSync(join(within, name), `arrived_at,num_prefill_tokens,num_decode_tokens\n${time},4,2\n`)
    writeFileSync(join(within, "README.md"), "no requests")
    const { kind, readable, title, contents, uses } = await Effect.runPromise(diagnose(within))
    expect({ kind, readable, title }).toEqual({
      kind: "requests",
      readable: true,
      title: "a folder of 2 traces of requests (vidur)"
    })
    expect(contents).toEqual(["2 requests over 7.000 s, of 4 prompt and 2 generated tokens in the mean"])
    expect(uses[0]!.how).toContain(`trace: ${within}`)
  })

  it("says what a trace lacks and how to record it", async () => {
    const { missing } = await of("test/fixtures/import/03-no-shapes.json")
    expect(missing.map(({ how }) => how).join("\n")).toContain("record_shapes=True")
  })

  it.each([
    ["trace.json.gz", gzipSync('{"traceEvents": []}'), "kineto"],
    ["x.nsys-rep", "SQLite format 3\u0000", "nsys"],
    ["x.pt", "PK\u0003\u0004abc", "torch-save"],
    ["results.json", '{"rocprofiler-sdk-tool":[{"metadata":{}}]}', "rocprof"],
    ["page.json", "<!DOCTYPE html><html>", "html"],
    ["lfs.json", "version https://git-lfs.github.com/spec/v1\noid sha256:0", "git-lfs"],
    ["nothing", "", "empty"],
    ["text", "hello\nworld", "unknown"],
    ["broken.txt", "# all_reduce_perf\n# size count type redop root time algbw busbw #wrong\n", "nccl-tests"]
  ])("of %s is that nothing can use it", async (name, content, kind) => {
    const { kind: found, readable } = await ofText(name, content)
    expect([found, readable]).toEqual([kind, false])
  })
})
