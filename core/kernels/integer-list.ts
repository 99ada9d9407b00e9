// Whole numbers as a kernel's attribute holds them: "3,0,5". For what decides shapes or never
// changes (counts of rows, starts of shots); what changes from launch to launch is a scalar or a tensor.

export const printIntegers = (values: ReadonlyArray<number>): string => values.join(",")

/** Throws RangeError for anything but whole numbers from `least` on, separated by commas; "" is no number. */
export const parseIntegers = (kernel: string, attribute: string, list: string): Array<number> => {
  if (list === "") return []
  return list.split(",").map((part) => {
    const value = Number(part)
    if (!/^-?\d+$/.test(part) || value < 0)
      throw new RangeError(`${kernel}: ${attribute} is "${list}"; expected whole numbers, like "3,0,5"`)
    return value
  })
}
