// The rules of tidy/native.ts over every C++ and CUDA source; and files against each rule, to see it fail.
import { globSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { describe, expect, it } from "vitest"
import { nativeFiles, nativeRules } from "./native.ts"

const root = fileURLToPath(new URL("../..", import.meta.url))
const sources = globSync(nativeFiles, { cwd: root })
  .map((path) => path.replaceAll("\\", "/"))
  .filter((path) => !path.startsWith("native/build/"))
  .map((path) => ({ path, text: readFileSync(join(root, path), "utf8") }))

type Example = readonly [path: string, text: string]

/** For each rule: files that break it, and files that come close. */
const examples: Readonly<
  Record<string, { readonly breaks: ReadonlyArray<Example>; readonly keeps: ReadonlyArray<Example> }>
> = {
  "the cuda backend is a library of its own": {
    breaks: [
      ["native/rank.cc", '#include "cuda/stream.h"'],
      ["native/cpu/lane.cc", '#include "../cuda/stream.h"'],
      ["native/cuda/stream.cu", '#include "../cpu/lane.h"']
    ],
    keeps: [
      ["native/backends.cc", '#include "cpu/machine.h"'],
      ["native/cuda/stream.cu", '#include "stream.h"\n#include "../backend.h"'],
      ["native/test/tiles/block.h", '#include "../../cuda/packing.cuh"']
    ]
  },
  "one concept a file": {
    breaks: [["native/cuda/a.cu", "//\n".repeat(501)]],
    keeps: [["native/cuda/a.cuh", "//\n".repeat(500)]]
  },
  "lines that can be read": {
    breaks: [["native/cuda/a.cu", `// ${"a".repeat(138)}`]],
    keeps: [["native/cuda/a.cu", `// ${"a".repeat(137)}\n// ${"²".repeat(137)}`]]
  },
  "files say what they are for": {
    breaks: [
      ["native/cuda/a.cu", '#include "b.h"'],
      ["native/cuda/a.h", "#pragma once"],
      ["native/cuda/a.h", '#include "a.h"']
    ],
    keeps: [
      ["native/cuda/a.cu", '#include "a.h"'],
      ["native/cuda/a.cu", '// One.\n#include "b.h"']
    ]
  },
  "headers are read once": {
    breaks: [
      ["native/a.h", "// One.\nint a();"],
      ["native/cuda/a.cuh", "// #pragma once"]
    ],
    keeps: [
      ["native/a.h", "// One.\n#pragma once"],
      ["native/a.h", "// One.\n#ifndef TANDEM_A\n#define TANDEM_A\n#endif"],
      ["native/a.cc", "// One."]
    ]
  },
  "headers open no namespace": {
    breaks: [["native/a.h", "using namespace std;"]],
    keeps: [
      ["native/a.cc", "using namespace tandem;"],
      ["native/a.h", "using std::min;"]
    ]
  },
  "no chance": {
    breaks: [
      ["native/a.cc", "std::mt19937 random(std::random_device{}());"],
      ["native/a.cc", "srand(time(nullptr))"],
      ["native/a.cc", "int x = rand();"]
    ],
    keeps: [["native/a.cc", "std::mt19937 random(seed); operand(1); time(point);"]]
  },
  "names of files": {
    breaks: [
      ["native/cpu/common.h", ""],
      ["native/helpers/a.cc", ""]
    ],
    keeps: [["native/cpu/commons.h", ""]]
  },
  "nothing left to do": {
    breaks: [["native/a.cu", `// ${"TO"}${"DO"}: later`]],
    keeps: [["native/a.cu", 'char root[] = "/tmp/tandem-XXXXXX"; // to do']]
  }
}

describe("every native source", () => {
  it("is looked at", () => {
    expect(sources.length).toBeGreaterThan(150)
    for (const one of [
      "cpu/lane.cc",
      "cuda/stream.cu",
      "cuda/packing.cuh",
      "transport/mesh.h",
      "test/main.cc"
    ])
      expect(sources.map(({ path }) => path)).toContain(`native/${one}`)
  })

  for (const { name, instead, check } of nativeRules) {
    it(name, () => {
      const found = sources.flatMap((source) =>
        check(source).map(({ line, what }) => `${source.path}:${line}: ${what}`)
      )
      expect(found, `Instead: ${instead}`).toEqual([])
    })
  }
})

describe("every rule for native sources can fail", () => {
  it("has examples", () => {
    expect(Object.keys(examples)).toEqual(nativeRules.map(({ name }) => name))
  })

  for (const { name, check } of nativeRules) {
    it(name, () => {
      const { breaks, keeps } = examples[name]!
      for (const [path, text] of breaks) expect(check({ path, text }).length, path).toBeGreaterThan(0)
      for (const [path, text] of keeps) expect(check({ path, text }), path).toEqual([])
    })
  }
})
