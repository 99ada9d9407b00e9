// Every page of the documentation: what it links to is there, and so is what it names.
import { existsSync, globSync, readFileSync } from "node:fs"
import { basename, dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { describe, expect, it } from "vitest"
import { anchorLinksIn, anchorsOf, fileLinksIn, filesNamedIn, sourcesNamedIn } from "./pages.ts"

const root = fileURLToPath(new URL("../..", import.meta.url))
const read = (path: string): string => readFileSync(join(root, path), "utf8")
const files = (pattern: string): ReadonlyArray<string> =>
  globSync(pattern, { cwd: root }).map((path) => path.replaceAll("\\", "/"))

const folders = "{bench,bin,core,docs,exec,native,scenarios,sim,test,testing,traces}"
const all = files(`${folders}/**`)
  .concat(files("*.*"))
  .filter((path) => !path.startsWith("native/build/"))
const pages = all.filter((path) => path.endsWith(".md"))

describe("the documentation", () => {
  const broken = (page: string, text: string): ReadonlyArray<string> =>
    fileLinksIn(text).filter((link) => !existsSync(join(root, dirname(page), link)))

  it("links to files that exist", () => {
    expect(pages).toContain("README.md")
    expect(pages.flatMap((page) => broken(page, read(page)).map((link) => `${page}: ${link}`))).toEqual([])
  })

  const lost = (page: string, text: string): ReadonlyArray<string> =>
    anchorLinksIn(text)
      .filter((link) => {
        const target = link.page === "" ? page : join(dirname(page), link.page)
        const there = link.page === "" ? text : existsSync(join(root, target)) ? read(target) : ""
        return !anchorsOf(there).has(link.anchor)
      })
      .map((link) => `${link.page}#${link.anchor}`)

  it("links to headings that exist", () => {
    expect(pages.flatMap((page) => anchorLinksIn(read(page))).length).toBeGreaterThan(20)
    expect(pages.flatMap((page) => lost(page, read(page)).map((link) => `${page}: ${link}`))).toEqual([])
  })

  it("would find a lost heading", () => {
    const page =
      "# `sim run --json`\n## What is [here](a.md), and not\n## Twice\n## Twice\n```\n# no heading\n```\n"
    expect([...anchorsOf(page)]).toEqual(["sim-run---json", "what-is-here-and-not", "twice", "twice-1"])
    const links = "[a](#twice-1) [b](#no-heading) [c](../README.md#nowhere) [d](https://b.org/#x)"
    expect(lost("docs/a.md", `${page}${links}`)).toEqual(["#no-heading", "../README.md#nowhere"])
  })

  it("names files that exist", () => {
    for (const page of ["docs/map.md", "docs/architecture.md"])
      expect(filesNamedIn(read(page)).length, page).toBeGreaterThan(20)
    const lost = pages.flatMap((page) =>
      filesNamedIn(read(page))
        .filter((path) => !path.startsWith("native/build/") && files(path).length === 0)
        .map((path) => `${page}: ${path}`)
    )
    expect(lost).toEqual([])
    const named = filesNamedIn("`core/a.ts`, `sim/*/b.ts`, `npm run x`, `docs`")
    expect(named).toEqual(["core/a.ts", "sim/*/b.ts"])
    expect(files("sim/*/engine.ts")).toEqual(["sim/engine/engine.ts"])
    expect(files("core/nowhere/*.ts")).toEqual([])
  })

  it("names sources that exist", () => {
    const ends = (path: string): boolean => all.some((file) => file === path || file.endsWith(`/${path}`))
    const lost = pages.flatMap((page) =>
      sourcesNamedIn(read(page))
        // `src/` is another project's: there is none here.
        .filter((path) => !path.startsWith("src/") && !ends(path.replace(/^\.\//u, "")))
        .map((path) => `${page}: ${path}`)
    )
    expect(lost).toEqual([])
    expect(sourcesNamedIn("`a/op.ts`, `mesh.h`, `x.arrow`, `f(op.ts)`")).toEqual(["a/op.ts", "mesh.h"])
    expect([ends("engine.ts"), ends("sim/engine/engine.ts"), ends("ngine.ts")]).toEqual([true, true, false])
  })

  it("has every folder of the layers on the map", () => {
    const map = read("docs/map.md")
    const folders = globSync("{core,sim,exec,traces,scenarios,native,bench}/*/", { cwd: root })
      .map((path) => path.replaceAll("\\", "/").replace(/\/$/u, ""))
      .filter((path) => path !== "native/build" && files(`${path}/**/*.{ts,cc,cu,py}`).length > 0)
    expect(folders).toContain("core/laws")
    const missing = folders.filter((path) => !new RegExp(`(?<![\\w-])${basename(path)}/`, "u").test(map))
    expect(missing).toEqual([])
  })

  it("would be found out", () => {
    expect(
      broken("docs/a.md", "[here](cli.md#run), [there](https://b.org/c.md), ![lost](nowhere.png)")
    ).toEqual(["nowhere.png"])
  })
})
