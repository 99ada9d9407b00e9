// Attributes that change from launch to launch: an op that leaves them out is built once, and told their values whenever it is
// submitted. Knows nothing of machines or of when anything runs.
import type { Attributes, Kernel } from "./kernel.ts"

/** Values given at a launch, in the order of `Kernel.scalars`. */
export type Scalars = ReadonlyArray<number>

/**
 * What is wrong with the scalars of a launch, as a phrase; undefined when nothing is. They are given all together, as finite
 * numbers, and only where the attributes have none of them; they must be where one of them has no fallback either.
 */
export const scalarsMisfit = (
  kernel: Kernel,
  attributes: Attributes,
  scalars: Scalars | undefined
): string | undefined => {
  const names = kernel.scalars
  if (scalars === undefined) {
    const left = names.filter(
      (name) => attributes[name] === undefined && kernel.attributes[name]!.fallback === undefined
    )
    return left.length === 0
      ? undefined
      : `has no value for ${left.map((name) => `"${name}"`).join(" and ")}: give ${names.join(", ")} at each launch`
  }
  if (scalars.length !== names.length) {
    return `was given ${scalars.length} scalars; expected ${names.length}${names.length === 0 ? "" : `: ${names.join(", ")}`}`
  }
  const twice = names.find((name) => attributes[name] !== undefined)
  if (twice !== undefined) return `has "${twice}" as an attribute and was given it at launch`
  const bad = scalars.findIndex((value) => !Number.isFinite(value))
  return bad < 0 ? undefined : `was given "${names[bad]}" as ${scalars[bad]}; expected a finite number`
}

/** The attributes of one launch: those of the call, and what was given for its scalars. */
export const attributesAt = (
  kernel: Kernel,
  attributes: Attributes,
  scalars: Scalars | undefined
): Attributes =>
  scalars === undefined
    ? attributes
    : { ...attributes, ...Object.fromEntries(kernel.scalars.map((name, i) => [name, scalars[i]!])) }
