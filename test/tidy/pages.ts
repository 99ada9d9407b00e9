// What a Markdown page links to and names. Reads text; whether it is there is the test's business.

/** Links of a Markdown page to files, without their anchors. */
export const fileLinksIn = (markdown: string): ReadonlyArray<string> =>
  [...markdown.matchAll(/\]\(([^)#\s]+)[^)]*\)/gu)]
    .map((match) => match[1]!)
    .filter((link) => !/^[a-z]+:/u.test(link))

/** Text of a Markdown page outside blocks of code. */
const proseOf = (markdown: string): string => markdown.replaceAll(/^```[\s\S]*?^```$/gmu, "")

/** Anchors of a Markdown page's headings, as GitHub makes them: repeated ones are numbered. */
export const anchorsOf = (markdown: string): ReadonlySet<string> => {
  const seen = new Map<string, number>()
  const anchors = [...proseOf(markdown).matchAll(/^#{1,6} +(.+)$/gmu)].map(([, heading]) => {
    const text = heading!
      .replaceAll(/\[([^\]]*)\]\([^)]*\)/gu, "$1")
      .trim()
      .toLowerCase()
    const anchor = text.replaceAll(/[^\p{L}\p{N}\p{M}_ -]/gu, "").replaceAll(" ", "-")
    const times = seen.get(anchor) ?? 0
    seen.set(anchor, times + 1)
    return times === 0 ? anchor : `${anchor}-${times}`
  })
  return new Set(anchors)
}

/** Links of a Markdown page to headings: the page named, empty for this one, and the anchor. */
export const anchorLinksIn = (
  markdown: string
): ReadonlyArray<{ readonly page: string; readonly anchor: string }> =>
  [...proseOf(markdown).matchAll(/\]\(([^)#\s]*)#([^)\s]+)\)/gu)]
    .map(([, page, anchor]) => ({ page: page!, anchor: anchor! }))
    .filter(({ page }) => !/^[a-z]+:/u.test(page))

/** The roots of what pages name. */
const root = "(?:core|traces|scenarios|sim|exec|native|testing|test|bench|docs|bin)"

/** Files and folders of ours that a page names by their paths, patterns too: `core/machine/op.ts`, `core/algorithms/*\/plan`. */
export const filesNamedIn = (markdown: string): ReadonlyArray<string> =>
  [...markdown.matchAll(new RegExp(`\`(${root}/[\\w./*-]+)\``, "gu"))].map((match) => match[1]!)

/** Sources that a page names by how their paths end: `op.ts`, `train/summary.ts`. */
export const sourcesNamedIn = (markdown: string): ReadonlyArray<string> =>
  [...markdown.matchAll(/`([\w./-]+\.(?:ts|cc|cu|cuh|h|inc|py|js|sh))`/gu)].map((match) => match[1]!)
