// Dates of request traces are dates of the calendar: what is none is refused, and does not roll over to another day.
import * as fc from "fast-check"
import { expect, it } from "vitest"
import { momentOf } from "../../traces/requests/arrivals.ts"
import { TraceError } from "../../traces/trace-error.ts"

const read = (text: string) => momentOf("f", "x", text, "seconds")
const two = (value: number): string => String(value).padStart(2, "0")

it("are read as the calendar has them, with their zone", () => {
  const moments = fc.date({ min: new Date("1970-01-02"), max: new Date("2199-12-30"), noInvalidDate: true })
  fc.assert(
    fc.property(moments, fc.integer({ min: -14 * 60, max: 14 * 60 }), (date, minutes) => {
      const text = date.toISOString().slice(0, 19)
      const whole = Math.floor(date.getTime() / 1000)
      const away = Math.abs(minutes)
      const zone = `${minutes < 0 ? "-" : "+"}${two(Math.floor(away / 60))}:${two(away % 60)}`
      expect(read(`${text}.25Z`)).toEqual({ whole, fraction: 0.25 })
      expect(read(text.replace("T", " "))).toEqual({ whole, fraction: 0 })
      expect(read(`${text}${zone}`)).toEqual({ whole: whole - 60 * minutes, fraction: 0 })
    })
  )
})

it.each([
  "2023-13-45 00:00:00",
  "2023-00-10 00:00:00",
  "2023-04-31 00:00:00",
  "2023-02-29 00:00:00",
  "2023-01-00 00:00:00",
  "2023-11-16 24:00:00",
  "2023-11-16 18:60:03",
  "2023-11-16 18:17:60",
  "0023-11-16 18:17:03",
  "2023-11-16 18:17:03+24:00",
  "2023-11-16 18:17:03+02:60"
])("%s is refused", (text) => {
  expect(() => read(text)).toThrow(TraceError)
  expect(() => read(text)).toThrow(JSON.stringify(text))
})

it("29 February is one of a leap year", () => {
  expect(read("2024-02-29 00:00:00").whole).toBe(Date.UTC(2024, 1, 29) / 1000)
})
