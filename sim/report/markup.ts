// HTML as values: text put into a `markup` template is escaped, markup is not. The only place that makes markup of text.

export interface Markup {
  readonly html: string
}

/** `undefined` and `false` become nothing; lists are joined. */
type MarkupValue = string | number | Markup | undefined | false | ReadonlyArray<MarkupValue>

const entities: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;"
}

/** Safe in text and in quoted attributes. Control characters, which HTML does not allow, are replaced. */
const escapeText = (text: string): string =>
  text
    // oxlint-disable-next-line no-control-regex -- these are what is looked for
    .replaceAll(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f]/gu, "\ufffd")
    .replaceAll(/[&<>"']/gu, (character) => entities[character]!)

const render = (value: MarkupValue): string => {
  if (value === undefined || value === false) return ""
  if (typeof value === "string") return escapeText(value)
  if (typeof value === "number") return String(value)
  if ("html" in value) return value.html
  return value.map(render).join("")
}

export const markup = (strings: TemplateStringsArray, ...values: ReadonlyArray<MarkupValue>): Markup => {
  let html = strings[0]!
  values.forEach((value, index) => {
    html += render(value) + strings[index + 1]!
  })
  return { html }
}

/** Text that is markup already: our own style sheet and script, never a user's text. */
export const trusted = (html: string): Markup => ({ html })

/** Data for the page's script, in an element that `id` names; nothing in it can end the element. */
export const jsonData = (name: string, data: unknown): Markup =>
  trusted(
    `<script type="application/json" data-${name}>${JSON.stringify(data)
      .replaceAll("<", String.raw`\u003c`)
      .replaceAll("\u2028", String.raw`\u2028`)
      .replaceAll("\u2029", String.raw`\u2029`)}</script>`
  )

/** A coordinate: one decimal is a tenth of a pixel. */
export const px = (value: number): string => String(Math.round(value * 10) / 10)
