// The rules that a machine can hold the C++ and CUDA sources to, each with what to write instead. Reads text, knows no C++.
import { posix } from "node:path"
import { linesMax, matchesOf, namedForNoConcept, type Finding } from "./rules.ts"

interface NativeSource {
  /** From the root of the repository, with slashes. */
  readonly path: string
  readonly text: string
}

interface NativeRule {
  readonly name: string
  readonly instead: string
  readonly check: (source: NativeSource) => ReadonlyArray<Finding>
}

/** Files that the rules are for; not those that a test makes, such as signatures.inc. */
export const nativeFiles = "native/**/*.{cc,cu,cuh,h}"

const columnsMax = 140

const isHeader = (path: string): boolean => /\.(?:h|cuh)$/u.test(path)
/** Files of ours that a source includes, from the root, and where. */
const includesOf = ({ path, text }: NativeSource): ReadonlyArray<{ line: number; path: string }> =>
  text.split("\n").flatMap((line, index) => {
    const included = /^\s*#\s*include\s+"([^"]+)"/u.exec(line)?.[1]
    return included === undefined
      ? []
      : [{ line: index + 1, path: posix.join(posix.dirname(path), included) }]
  })

const sharedWithCuda = new Set(
  [
    "anywhere.h",
    "backend.h",
    "chunks.h",
    "collective-call.h",
    "drawn.h",
    "peers.h",
    "random.h",
    "share.h",
    "spans.h",
    "cpu/shared.h"
  ].map((name) => `native/${name}`)
)
const isCuda = (path: string): boolean => path.startsWith("native/cuda/")

export const nativeRules: ReadonlyArray<NativeRule> = [
  {
    name: "the cuda backend is a library of its own",
    instead:
      "what both sides share, in a header that the addon and that library each compile; nothing else of either",
    check: (source) =>
      source.path.startsWith("native/test/")
        ? []
        : includesOf(source)
            .filter(({ path }) =>
              isCuda(source.path) ? !isCuda(path) && !sharedWithCuda.has(path) : isCuda(path)
            )
            .map(({ line, path }) => ({ line, what: `include of ${path}` }))
  },
  {
    name: "one concept a file",
    instead: `at most ${linesMax} lines; split by concept`,
    check: ({ text }) => {
      const lines = text.trimEnd().split("\n").length
      return lines <= linesMax ? [] : [{ line: linesMax + 1, what: `${lines} lines, at most ${linesMax}` }]
    }
  },
  {
    name: "lines that can be read",
    instead: `at most ${columnsMax} characters; a name for a part, or a line more`,
    check: ({ text }) =>
      text.split("\n").flatMap((line, index) => {
        const length = [...line].length
        return length <= columnsMax
          ? []
          : [{ line: index + 1, what: `${length} characters, at most ${columnsMax}` }]
      })
  },
  {
    name: "files say what they are for",
    instead: "a first line of comment; a source that begins with its own header has that of the header",
    check: ({ path, text }) => {
      const own = `#include "${posix.basename(path).replace(/\.\w+$/u, "")}.`
      return text.startsWith("//") || (!isHeader(path) && text.startsWith(own))
        ? []
        : [{ line: 1, what: "no comment at its beginning" }]
    }
  },
  {
    name: "headers are read once",
    instead: "#pragma once; an #ifndef where another file stands in for it, or it is compiled by itself",
    check: ({ path, text }) =>
      !isHeader(path) || /^#pragma once$|^#ifndef TANDEM_\w+\n#define TANDEM_/mu.test(text)
        ? []
        : [{ line: 1, what: "nothing keeps it from being read twice" }]
  },
  {
    name: "headers open no namespace",
    instead: "the name in full, or `using` inside of a source",
    check: (source) => (isHeader(source.path) ? matchesOf(source, /\busing namespace\b/u) : [])
  },
  {
    name: "no chance",
    instead: "numbers drawn by seed and place, as native/drawn.h draws them",
    check: (source) => matchesOf(source, /\brandom_device\b|\bs?rand\(|\btime\((?:nullptr|NULL|0)\)/u)
  },
  {
    name: "names of files",
    instead: "the concept that the file is about",
    check: ({ path }) => namedForNoConcept(path)
  },
  {
    name: "nothing left to do",
    instead: "do it, or say in the docs what is not there",
    check: (source) => matchesOf(source, /\b(?:TODO|FIXME|XXX)\b/u)
  }
]
