// The page's script: crosshair and values under the pointer or arrow keys, sorting, theme, copy. The page is complete
// without it. Afterwards it counts what was drawn and says so on <body>, for tests: data-figures (how many), data-empty
// (figures without a visible mark), data-marks (visible marks) and data-errors (script errors).

export const clientScript = String.raw`(() => {
"use strict"
const body = document.body
let errors = 0
addEventListener("error", () => { body.dataset.errors = String(++errors) })
body.dataset.errors = "0"
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)]
const tip = document.getElementById("tip")
const make = (tag, className, text) => {
  const element = document.createElement(tag)
  if (className) element.className = className
  if (text !== undefined) element.textContent = text
  return element
}
const show = (content, x, y) => {
  tip.replaceChildren(...content)
  tip.hidden = false
  const { width, height } = tip.getBoundingClientRect()
  tip.style.left = Math.max(4, x + 16 + width > innerWidth ? x - 16 - width : x + 16) + "px"
  tip.style.top = Math.max(4, Math.min(innerHeight - height - 4, y + 14)) + "px"
}
const hide = () => { tip.hidden = true }
const svgElement = (tag, attributes) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag)
  for (const name in attributes) element.setAttribute(name, attributes[name])
  return element
}

// Line charts: the crosshair snaps to the nearest point of the axis.
for (const svg of $$('svg[data-hover="lines"]')) {
  const data = JSON.parse(svg.parentNode.querySelector("script[data-points]").textContent)
  const cross = svg.querySelector(".cross")
  const dots = svg.querySelector(".dots")
  let index = -1
  const leave = () => {
    index = -1
    svg.classList.remove("hovered")
    dots.replaceChildren()
    hide()
  }
  const at = (i, clientX, clientY) => {
    index = i
    svg.classList.add("hovered")
    cross.setAttribute("x1", data.x[i])
    cross.setAttribute("x2", data.x[i])
    const known = data.series.filter((s) => s.y[i] !== null).sort((a, b) => a.y[i] - b.y[i])
    dots.replaceChildren(...known.map((s) => svgElement("circle", { cx: data.x[i], cy: s.y[i], r: 4, fill: "var(--s" + s.slot + ")" })))
    const table = make("table")
    for (const s of known) {
      const row = make("tr")
      const name = make("td", "", s.name)
      name.style.color = "var(--s" + s.slot + ")"
      row.append(name, make("td", "n", s.text[i]))
      table.append(row)
    }
    show([make("div", "h", data.labels[i]), table], clientX, clientY)
  }
  const toClient = (i) => {
    const box = svg.getBoundingClientRect()
    const scale = box.width / svg.viewBox.baseVal.width
    return [box.left + data.x[i] * scale, box.top + box.height / 3]
  }
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect()
    const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width
    let nearest = 0
    data.x.forEach((candidate, i) => { if (Math.abs(candidate - x) < Math.abs(data.x[nearest] - x)) nearest = i })
    at(nearest, event.clientX, event.clientY)
  })
  svg.addEventListener("pointerleave", leave)
  svg.addEventListener("blur", leave)
  svg.addEventListener("keydown", (event) => {
    const last = data.x.length - 1
    const next = { ArrowRight: Math.min(last, index + 1), ArrowLeft: index < 0 ? last : Math.max(0, index - 1), Home: 0, End: last }[event.key]
    if (event.key === "Escape") leave()
    if (next === undefined) return
    event.preventDefault()
    at(next, ...toClient(next))
  })
}

// An algorithm under the pointer stands out in every chart.
for (const element of $$(".name[data-key], .s[data-key], .bar[data-key]")) {
  const mark = (on) => {
    for (const svg of $$('svg[data-hover="lines"]')) svg.classList.toggle("focus", on)
    for (const other of $$("[data-key]")) other.classList.toggle("on", on && other.dataset.key === element.dataset.key)
  }
  element.addEventListener("pointerenter", () => mark(true))
  element.addEventListener("pointerleave", () => mark(false))
}

// Timelines: the bar under the pointer, by binary search.
const seconds = (s) => {
  const [value, unit] = s >= 1 ? [s, "s"] : s >= 1e-3 ? [s * 1e3, "ms"] : s >= 1e-6 ? [s * 1e6, "\u00b5s"] : [s * 1e9, "ns"]
  return Number(value.toPrecision(3)) + " " + unit
}
for (const figure of $$("figure.timeline")) {
  const { texts, secondsPerUnit } = JSON.parse(figure.querySelector(":scope > script[data-labels]").textContent)
  for (const strip of $$('[data-hover="lane"]', figure)) {
    const bars = JSON.parse(strip.querySelector("script[data-bars]").textContent)
    const count = bars.length / 5
    const frame = make("div", "at")
    let index = -1
    const leave = () => { index = -1; frame.remove(); hide() }
    const at = (i, clientX, clientY) => {
      index = i
      const [start, width, first, last, ops] = bars.slice(i * 5, i * 5 + 5)
      frame.style.left = start / 1000 + "%"
      frame.style.width = width / 1000 + "%"
      strip.append(frame)
      const name = last < 0 ? texts[first] : ops + " ops: " + texts[first] + " \u2026 " + texts[last]
      const time = seconds((width / 100) * secondsPerUnit) + ", from " + seconds((start / 100) * secondsPerUnit)
      show([make("div", "h", name), make("span", "", time)], clientX, clientY)
    }
    strip.addEventListener("pointermove", (event) => {
      const box = strip.getBoundingClientRect()
      const x = ((event.clientX - box.left) / box.width) * 100000
      let low = 0
      let high = count
      while (low < high) {
        const middle = (low + high) >> 1
        if (bars[middle * 5] <= x) low = middle + 1
        else high = middle
      }
      // Bars may be a pixel wide: two pixels off still hits.
      const slack = (2 / box.width) * 100000
      const i = low - 1
      if (i >= 0 && x <= bars[i * 5] + bars[i * 5 + 1] + slack) at(i, event.clientX, event.clientY)
      else if (low < count && bars[low * 5] - x <= slack) at(low, event.clientX, event.clientY)
      else leave()
    })
    strip.addEventListener("pointerleave", leave)
    strip.addEventListener("blur", leave)
    strip.addEventListener("keydown", (event) => {
      const next = { ArrowRight: Math.min(count - 1, index + 1), ArrowLeft: index < 0 ? count - 1 : Math.max(0, index - 1), Home: 0, End: count - 1 }[event.key]
      if (event.key === "Escape") leave()
      if (next === undefined || next < 0) return
      event.preventDefault()
      const box = strip.getBoundingClientRect()
      at(next, box.left + ((bars[next * 5] + bars[next * 5 + 1] / 2) / 100000) * box.width, box.bottom)
    })
  }
}

const sameScale = document.getElementById("same-scale")
if (sameScale) {
  sameScale.parentNode.hidden = false
  sameScale.addEventListener("change", () => document.getElementById("timelines").classList.toggle("same", sameScale.checked))
}

// Tables: a header sorts by its column, a second time the other way round.
for (const table of $$("table[data-sortable]")) {
  const headers = $$("th", table)
  const rows = $$("tbody tr", table)
  headers.forEach((header, column) => {
    header.firstChild.addEventListener("click", () => {
      const descending = header.getAttribute("aria-sort") === "ascending"
      for (const other of headers) other.removeAttribute("aria-sort")
      header.setAttribute("aria-sort", descending ? "descending" : "ascending")
      const value = (row) => row.cells[column].dataset.v ?? row.cells[column].textContent
      const numeric = header.classList.contains("n")
      const sorted = [...rows].sort((a, b) => {
        const [x, y] = [value(a), value(b)]
        const order = numeric ? (Number(x) || 0) - (Number(y) || 0) : x.localeCompare(y)
        return descending ? -order : order
      })
      table.tBodies[0].append(...sorted)
    })
  })
}

for (const button of $$(".copy")) {
  if (!navigator.clipboard) break
  button.hidden = false
  button.addEventListener("click", () => {
    navigator.clipboard.writeText(button.nextElementSibling.textContent).then(() => {
      button.textContent = "Copied"
      setTimeout(() => { button.textContent = "Copy" }, 1500)
    }, () => { button.hidden = true })
  })
}

const theme = document.getElementById("theme")
const dark = matchMedia("(prefers-color-scheme: dark)")
const isDark = () => (document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark"
const label = () => { theme.textContent = isDark() ? "Light" : "Dark" }
theme.hidden = false
theme.addEventListener("click", () => { document.documentElement.dataset.theme = isDark() ? "light" : "dark"; label() })
dark.addEventListener("change", label)
label()

// What was drawn, after layout.
const check = () => {
  const visible = (element) => {
    const { width, height } = element.getBoundingClientRect()
    return width > 0 && height > 0
  }
  let marks = 0
  let empty = 0
  const figures = $$("[data-figure]")
  for (const figure of figures) {
    const drawn = $$(".line, .s circle, .track i, .strip path", figure).filter(visible).length
    marks += drawn
    if (drawn === 0) empty++
  }
  body.dataset.figures = String(figures.length)
  body.dataset.marks = String(marks)
  body.dataset.empty = String(empty)
  body.dataset.wide = String(Math.max(0, document.documentElement.scrollWidth - innerWidth))
}
if (document.readyState === "complete") check()
else addEventListener("load", check)
})()`
