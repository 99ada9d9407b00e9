// What axes and their values are called in tables and charts.

/** The field at the end of a path. */
export const lastName = (path: string): string => path.split(".").at(-1) ?? path

/** The end of each path that tells it from the others: "bandwidth", "collectives.algorithm". */
export const shortNames = (paths: ReadonlyArray<string>): ((path: string) => string) => {
  const suffix = (path: string, length: number) => path.split(".").slice(-length).join(".")
  return (path) => {
    let length = 1
    const clashes = () =>
      paths.some((other) => other !== path && suffix(other, length) === suffix(path, length))
    while (length < path.split(".").length && clashes()) length++
    return suffix(path, length)
  }
}

/** "dreamddp (period 5)": an alternative with its settings. */
export const labelOf = (value: unknown): string => {
  if (value === null || value === undefined) return "-"
  if (Array.isArray(value)) return value.length === 0 ? "none" : value.map(labelOf).join("; ")
  if (typeof value !== "object") return String(value)
  const entries = Object.entries(value)
  const name = entries.find(([key]) => key === "name")?.[1]
  const rest = entries
    .filter(([key]) => key !== "name" || typeof name !== "string")
    .map(([key, each]) => `${key} ${typeof each === "object" ? JSON.stringify(each) : String(each)}`)
  if (typeof name !== "string") return rest.join(", ")
  return rest.length === 0 ? name : `${name} (${rest.join(", ")})`
}
