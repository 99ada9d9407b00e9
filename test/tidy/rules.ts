// The rules that a machine can hold the sources to, each with what to write instead. Judges one file at a time; which
// files there are is the test's business.
import { posix } from "node:path"
import { functionLinesMax, longFunctions, ownLines } from "./long-functions.ts"
import { dotted, isNode, isReference, type Node, type Source } from "./source.ts"

export interface Finding {
  readonly line: number
  readonly what: string
}

interface Rule {
  readonly name: string
  readonly instead: string
  /** Paths from the root that it holds for. */
  readonly holdsFor: (path: string) => boolean
  readonly check: (source: Source) => ReadonlyArray<Finding>
}

const under =
  (...folders: ReadonlyArray<string>) =>
  (path: string): boolean =>
    folders.some((folder) => path === folder || path.startsWith(`${folder}/`))

/** What each folder may import of ours. The composition roots see everything. */
const layers: Readonly<Record<string, ReadonlyArray<string>>> = {
  core: [],
  traces: ["core"],
  scenarios: ["core", "traces"],
  sim: ["core", "traces", "scenarios"],
  exec: ["core", "traces", "scenarios"],
  testing: ["core", "traces", "scenarios", "sim", "exec"],
  docs: ["core", "traces", "scenarios", "sim", "exec", "testing"],
  bench: ["core", "traces", "scenarios", "sim", "exec", "testing"],
  test: ["core", "traces", "scenarios", "sim", "exec", "testing", "bench", "docs"]
}

/** `exec agree` hands both machines to the checker in core. */
const seesSimToo = "exec/cli/both-machines.ts"

const simulated = under("core", "scenarios", "sim")
/** Where the simulator meets people and threads, which live in real time. */
const inRealTime = under(
  "sim/cli.ts",
  "sim/cli",
  "scenarios/cli",
  "sim/study/pool.ts",
  "sim/study/event-loop.ts",
  "sim/study/run-study.ts",
  "sim/study/worker.ts"
)
const inVirtualTime = (path: string): boolean => simulated(path) && !inRealTime(path)
export const shipped = under("core", "scenarios", "sim", "exec", "traces", "testing")
const everywhere = (): boolean => true

/** Of every source; longFiles has exceptions. */
export const linesMax = 500
/** Longer ones, with their own limit and the reason. */
export const longFiles: Readonly<Record<string, { readonly linesMax: number; readonly because: string }>> = {
  "sim/engine/max-min.ts": {
    linesMax: 620,
    because:
      "one incremental solver; what repairs a level and what its lists of variables say are only correct together"
  }
}

const importsOf = (source: Source, banned: (specifier: string) => boolean): ReadonlyArray<Finding> =>
  source.imports
    .filter(({ specifier }) => banned(specifier))
    .map(({ specifier, line }) => ({ line, what: `import of "${specifier}"` }))

const nodesOf = (
  source: Source,
  what: (node: Node, parent: Node | undefined) => string | undefined
): ReadonlyArray<Finding> =>
  source.nodes.flatMap(({ node, parent }) => {
    const found = what(node, parent)
    return found === undefined ? [] : [{ line: source.lineOf(node), what: found }]
  })

/** Uses of names, whole or as the end of a longer one: `Math.random` is also found in `globalThis.Math.random`. */
const namesOf = (source: Source, banned: ReadonlySet<string>): ReadonlyArray<Finding> =>
  nodesOf(source, (node, parent) => {
    if (!isReference(node, parent)) return undefined
    const name = dotted(node)?.replace(/^(?:globalThis|global)\./u, "")
    return name !== undefined && banned.has(name) ? name : undefined
  })

export const matchesOf = (source: Pick<Source, "text">, pattern: RegExp): ReadonlyArray<Finding> =>
  source.text.split("\n").flatMap((text, index) => {
    const match = pattern.exec(text)
    return match === null ? [] : [{ line: index + 1, what: match[0] }]
  })

export const namedForNoConcept = (path: string): ReadonlyArray<Finding> =>
  /(?:^|\/)(?:utils?|helpers?|types|common|misc)(?:\/|\.\w+$)/u.test(path)
    ? [{ line: 1, what: "a file named for no concept" }]
    : []

const clocks = new Set([
  "Date",
  "Date.now",
  "performance",
  "performance.now",
  "process.hrtime",
  "process.hrtime.bigint",
  "process.uptime"
])
const chance = new Set(["Math.random", "crypto.randomUUID", "crypto.getRandomValues", "crypto.randomBytes"])
const timers = new Set(["setTimeout", "setInterval", "setImmediate", "queueMicrotask", "process.nextTick"])
const realTimeModules = new Set([
  "node:perf_hooks",
  "node:timers",
  "node:timers/promises",
  "effect/Clock",
  "effect/Random",
  "effect/DateTime"
])
/** The one file that makes Effect's clock of virtual time. */
const isVirtualClock = ({ path }: Source, specifier: string): boolean =>
  path === "sim/virtual-clock.ts" && specifier === "effect/Clock"
const asynchronous = new Set([
  "Promise",
  "Effect.promise",
  "Effect.tryPromise",
  "Effect.runPromise",
  "Effect.runPromiseExit",
  "Effect.sleep"
])
/** Functions that engines and versions of Node may round differently; Math.sqrt is exact everywhere. */
const inexact = new Set(
  [
    "log",
    "log2",
    "log10",
    "log1p",
    "exp",
    "expm1",
    "pow",
    "sin",
    "cos",
    "tan",
    "atan",
    "atan2",
    "tanh",
    "cbrt",
    "hypot"
  ].map((name) => `Math.${name}`)
)
const modifiers = new Set(["skip", "only", "todo", "fails"])

export const rules: ReadonlyArray<Rule> = [
  {
    name: "layers",
    instead:
      "core imports nothing of ours, traces imports core, scenarios both, sim and exec import these and never each other; " +
      "what needs both belongs into test, bench, testing or exec agree, and what both need into core or scenarios",
    holdsFor: everywhere,
    check: ({ path, imports }) => {
      const from = path.split("/")[0]!
      const allowed = [from, ...(layers[from] ?? []), ...(under(seesSimToo)(path) ? ["sim"] : [])]
      return imports.flatMap(({ specifier, line }) => {
        // By its name the package is what others see of it: examples are written as they would write them.
        if (/^tandem(?:\/|$)/u.test(specifier) && from !== "docs")
          return [{ line, what: `${from} imports ${specifier}` }]
        if (!specifier.startsWith(".")) return []
        const to = posix.join(posix.dirname(path), specifier).split("/")
        return to.length === 1 || allowed.includes(to[0]!)
          ? []
          : [{ line, what: `${from} imports ${to.join("/")}` }]
      })
    }
  },
  {
    name: "core stands alone",
    instead: "take what comes from the outside as an argument: core runs without files, processes or devices",
    holdsFor: under("core"),
    check: (source) =>
      importsOf(source, (specifier) => !specifier.startsWith(".") && !specifier.startsWith("effect/"))
  },
  {
    name: "no clock",
    instead: "virtual time: Engine.now; what a person waits for is timed in sim/cli",
    holdsFor: inVirtualTime,
    check: (source) => [
      ...namesOf(source, clocks),
      ...importsOf(
        source,
        (specifier) => realTimeModules.has(specifier) && !isVirtualClock(source, specifier)
      )
    ]
  },
  {
    name: "no chance",
    instead: "a Random of core/random.ts, split by name from the scenario's seed",
    holdsFor: simulated,
    check: (source) => namesOf(source, chance)
  },
  {
    name: "no timer",
    instead: "Engine.at for virtual time, `later` of the simulated machine for after this moment",
    holdsFor: inVirtualTime,
    check: (source) => namesOf(source, timers)
  },
  {
    name: "no promise",
    instead:
      "synchronous code, or an Effect that the simulator's own queue runs (Effect.callback to wait); files are read in sim/cli",
    holdsFor: inVirtualTime,
    check: (source) => [
      ...namesOf(source, asynchronous),
      ...nodesOf(source, (node) => {
        if (node["async"] === true) return "async function"
        if (node.type === "AwaitExpression") return "await"
        if (node.type === "ForOfStatement" && node["await"] === true) return "for await"
        return node.type === "ImportExpression" ? "import()" : undefined
      })
    ]
  },
  {
    name: "times to the last bit",
    instead:
      "arithmetic that every machine rounds alike: the four operations, comparisons, Math.sqrt, integers, powers of a " +
      "literal 2; or core/elementary.ts",
    holdsFor: under(
      "sim/engine",
      "core/wire",
      "sim/collectives.ts",
      "sim/machine.ts",
      "sim/simulate.ts",
      "core/algorithms/data-parallel",
      "core/algorithms/moe-training",
      "core/algorithms/kv-serving",
      "core/algorithms/expert-offload/cache",
      "core/algorithms/expert-offload/predictor/trained.ts",
      "core/algorithms/expert-offload/prefetcher.ts",
      "core/algorithms/expert-offload/routing-generator.ts",
      "core/algorithms/expert-offload/zipf.ts",
      "core/cost",
      "core/elementary.ts",
      "core/machine",
      "core/random.ts"
    ),
    check: (source) => [
      ...namesOf(source, inexact),
      ...nodesOf(source, (node) => {
        if (node.type !== "BinaryExpression" || node["operator"] !== "**") return undefined
        const base = node["left"]
        return isNode(base) && base.type === "Literal" && base["value"] === 2 ? undefined : "**"
      })
    ]
  },
  {
    name: "no span in the simulator",
    instead: "Effect.gen or Effect.fnUntraced: a named Effect.fn or a span costs microseconds a call",
    holdsFor: simulated,
    check: (source) => namesOf(source, new Set(["Effect.fn", "Effect.withSpan", "Effect.useSpan"]))
  },
  {
    name: "no barrel of effect",
    instead:
      'the module itself: import * as Effect from "effect/Effect"; the barrel takes longer to load than a run',
    holdsFor: everywhere,
    check: (source) => importsOf(source, (specifier) => specifier === "effect")
  },
  {
    name: "no loose types",
    instead: "unknown and a check for any; a union of literals for an enum; a module for a namespace",
    holdsFor: everywhere,
    check: (source) => [
      ...nodesOf(source, (node) => {
        if (node.type === "TSAnyKeyword") return "any"
        if (node.type === "TSEnumDeclaration") return "enum"
        // Of another module's types, as of the global ones, one may say more.
        const isNamed = node.type === "TSModuleDeclaration" && node["kind"] !== "global"
        return isNamed && (node["id"] as Node).type !== "Literal" ? "namespace" : undefined
      }),
      ...matchesOf(source, /@ts-(?:ignore|expect-error|nocheck)\b/u)
    ]
  },
  {
    name: "imports name files",
    instead: "the file with its ending .ts: Node runs the sources as they are",
    holdsFor: everywhere,
    check: (source) =>
      importsOf(source, (specifier) => specifier.startsWith(".") && !/\.(?:ts|json)$/u.test(specifier))
  },
  {
    name: "one concept a file",
    instead: `at most ${linesMax} lines; split by concept, or give it a limit and a reason in longFiles`,
    holdsFor: everywhere,
    check: ({ path, text }) => {
      const most = longFiles[path]?.linesMax ?? linesMax
      const lines = text.trimEnd().split("\n").length
      return lines <= most ? [] : [{ line: most + 1, what: `${lines} lines, at most ${most}` }]
    }
  },
  {
    name: "one thought a function",
    instead: `at most ${functionLinesMax} lines of its own; name its parts, or give its file a limit and a reason in longFunctions`,
    holdsFor: everywhere,
    check: (source) => {
      const most = longFunctions[source.path]?.linesMax ?? functionLinesMax
      return [...ownLines(source)]
        .filter(([, lines]) => lines > most)
        .map(([node, lines]) => ({
          line: source.lineOf(node),
          what: `a function of ${lines} lines, at most ${most}`
        }))
    }
  },
  {
    name: "files say what they are for",
    instead: "a first line of comment: what the file is for and what it must not know",
    holdsFor: under("core", "scenarios", "sim", "exec", "traces", "testing", "bench", "docs"),
    check: ({ text }) =>
      /^(?:#!.*\n)?\/\//u.test(text) ? [] : [{ line: 1, what: "no comment at its beginning" }]
  },
  {
    name: "names of files",
    instead: "the concept that the module is about",
    holdsFor: everywhere,
    check: ({ path }) => namedForNoConcept(path)
  },
  {
    name: "results leave by one door",
    instead: "scenarios/cli/output.ts, which notices a full disk and a reader that has gone",
    holdsFor: shipped,
    check: (source) =>
      nodesOf(source, (node, parent) => {
        const name = isReference(node, parent) ? dotted(node) : undefined
        return name !== undefined && /^console\.\w+$/u.test(name) ? name : undefined
      })
  },
  {
    name: "every test runs",
    instead:
      "a test that runs always; what cannot run everywhere says when it does: describe.skipIf, or context.skip with a reason",
    holdsFor: (path) => path.endsWith(".test.ts"),
    check: (source) =>
      nodesOf(source, (node) => {
        if (node.type !== "MemberExpression") return undefined
        const [name, ...rest] = (dotted(node) ?? "").split(".")
        const modified = rest.some((part) => modifiers.has(part))
        return modified && /^(?:it|test|describe|suite|bench)$/u.test(name!) ? dotted(node) : undefined
      })
  },
  {
    name: "properties take their time",
    instead: "no limit of its own: a soak makes a property 20 times as long; vitest.config.ts has the limit",
    holdsFor: (path) => path.endsWith(".test.ts"),
    check: (source) =>
      nodesOf(source, (node) => {
        if (node.type !== "CallExpression") return undefined
        const text = source.text.slice(node.start, Number(node["end"]))
        if (!/^(?:it|test)\b/u.test(text) || !/\bfc\.(?:assert|check)\b|\bcheckAgreement\b/u.test(text))
          return undefined
        const limit = (node["arguments"] as ReadonlyArray<Node>).find(
          (each) =>
            (each.type === "Literal" && typeof each["value"] === "number") ||
            (each.type === "ObjectExpression" &&
              (each["properties"] as ReadonlyArray<Node>).some(({ key }) => dotted(key) === "timeout"))
        )
        return limit === undefined ? undefined : source.text.slice(limit.start, Number(limit["end"]))
      })
  },
  {
    name: "nothing left to do",
    instead: "do it, or say in the docs what is not there",
    holdsFor: (path) => !path.startsWith("test/tidy"),
    check: (source) => matchesOf(source, /\b(?:TODO|FIXME|XXX)\b/u)
  }
]

/** Modules loaded before the module at `path` runs, itself included; packages by their specifier. */
export const loadedBy = (path: string, sourceOf: (path: string) => Source): ReadonlySet<string> => {
  const loaded = new Set<string>()
  const load = (module: string): void => {
    if (loaded.has(module)) return
    loaded.add(module)
    for (const { specifier, typeOnly, dynamic } of sourceOf(module).imports) {
      if (typeOnly || dynamic) continue
      if (specifier.startsWith(".")) load(posix.join(posix.dirname(module), specifier))
      else loaded.add(specifier)
    }
  }
  load(path)
  return loaded
}

/** Addresses that an install would ask instead of the registry it is set up with. */
export const addressesIn = (lockfile: string): ReadonlyArray<string> =>
  [...lockfile.matchAll(/"resolved":\s*"(https?:[^"]+)"/gu)].map((match) => match[1]!)

/** Lines that a merge left for somebody to decide. */
export const mergeMarkersIn = (text: string): ReadonlyArray<string> =>
  text.split("\n").filter((line) => /^(?:<{7} |={7}$|>{7} |\|{7} )/u.test(line))
