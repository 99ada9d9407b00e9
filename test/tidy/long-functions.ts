// How long a function is: its own lines, without those of functions inside of it that have names. A program's body in Effect.gen is
// its own; a step of it that is named is that step's.
import type { Node, Source } from "./source.ts"

/** Longer ones are parts that could be named. */
export const functionLinesMax = 100

/** Longer ones by file, with the limit of that file's and the reason. */
export const longFunctions: Readonly<
  Record<string, { readonly linesMax: number; readonly because: string }>
> = {
  "core/algorithms/data-parallel/diloco/program.ts": {
    linesMax: 150,
    because: "a program in the order in which it submits: its steps share the tensors that they overlap on"
  },
  "core/algorithms/data-parallel/shard/storage.ts": {
    linesMax: 200,
    because: "where a model's parts lie, built once: every part refers to the others"
  },
  "core/algorithms/moe-training/gate.ts": {
    linesMax: 130,
    because: "one gate's kernels in the order in which they are submitted, forwards and back"
  },
  "core/algorithms/moe-training/moe-part.ts": {
    linesMax: 110,
    because: "one layer's ops in the order in which they are submitted"
  },
  "exec/cli/main.ts": { linesMax: 170, because: "the list of commands and their options" },
  "sim/explain/explain.ts": {
    linesMax: 110,
    because: "one account of one window: every line of it goes into one value"
  },
  "sim/report/style.ts": { linesMax: 130, because: "the text of one style sheet" },
  "sim/validate/expert-caches.ts": { linesMax: 120, because: "one section: a claim after the other" },
  "sim/validate/expertflow.ts": { linesMax: 170, because: "one section: a claim after the other" },
  "traces/kineto/attribute.ts": {
    linesMax: 160,
    because: "one pass over a trace whose parts share what was attributed so far"
  }
}

const isFunction = ({ type }: Node): boolean =>
  /^(?:FunctionDeclaration|FunctionExpression|ArrowFunctionExpression)$/u.test(type)

const naming = new Set([
  "VariableDeclarator",
  "Property",
  "MethodDefinition",
  "PropertyDefinition",
  "AssignmentExpression"
])

/** Each function that has a name, and how many lines are its own. */
export const ownLines = ({ nodes, text }: Source): ReadonlyMap<Node, number> => {
  const parentOf = new Map(nodes.map(({ node, parent }) => [node, parent]))
  const isNamed = (node: Node): boolean =>
    isFunction(node) && (node.type === "FunctionDeclaration" || naming.has(parentOf.get(node)?.type ?? ""))
  const own = new Map<Node, number>()
  // Parents come before their children.
  for (const { node } of nodes) {
    if (!isNamed(node)) continue
    const lines = text.slice(node.start, Number(node["end"])).split("\n").length
    own.set(node, lines)
    let outer = parentOf.get(node)
    while (outer !== undefined && !isNamed(outer)) outer = parentOf.get(outer)
    // One line stays: that of its name.
    if (outer !== undefined) own.set(outer, own.get(outer)! - lines + 1)
  }
  return own
}
