// Whole numbers as a kernel's attribute holds them: "3,0,5". For what the host knows and a launch must be told (lengths,
// positions, counts), where a tensor would have to be written first.

export const printIntegers = (values: ReadonlyArray<number>): string => values.join(",")

/** Throws RangeError for anything but whole numbers from `least` on, separated by commas; "" is no number. */
export const parseIntegers = (kernel: string, attribute: string, list: string, least = 0): Array<number> => {
  if (list === "") return []
  return list.split(",").map((part) => {
    const value = Number(part)
    if (!/^-?\d+$/.test(part) || value < least)
      throw new RangeError(
        `${kernel}: ${attribute} is "${list}"; expected whole numbers of at least ${least}, like "3,0,5"`
      )
    return value
  })
}
