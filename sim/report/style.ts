// The report's style sheet. Quiet: the data have the colours, everything else is ink and hairlines.
import type { Colour } from "./palette.ts"

const variables = (palette: ReadonlyArray<Colour>, scheme: "light" | "dark"): string =>
  palette.map((colour, slot) => `--s${slot}:${colour[scheme]}`).join(";")

const light = `color-scheme:light;--paper:#fff;--raised:#f7f8f9;--ink:#16191d;--soft:#59616b;--faint:#8b939d;--hair:#e6e9ec;--hair2:#f1f3f5;--compute:#8796a8;--hidden:#b9c3dd;--exposed:#c8324f;--track:#f1f3f5;--warn:#8a5a00`
const dark = `color-scheme:dark;--paper:#14171b;--raised:#1c2025;--ink:#e8ebee;--soft:#a4acb6;--faint:#747d88;--hair:#2a2f36;--hair2:#21262b;--compute:#76879b;--hidden:#4a5673;--exposed:#e25570;--track:#1f2429;--warn:#e3b341`

export const styleSheet = (palette: ReadonlyArray<Colour>): string => `
:root{${light};${variables(palette, "light")}}
@media screen and (prefers-color-scheme:dark){:root:not([data-theme=light]){${dark};${variables(palette, "dark")}}}
@media screen{:root[data-theme=dark]{${dark};${variables(palette, "dark")}}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 "Segoe UI","Helvetica Neue",Helvetica,Arial,sans-serif;font-variant-numeric:tabular-nums;-webkit-text-size-adjust:100%}
header,main,footer{max-width:1160px;margin:0 auto;padding:0 28px}
header{padding-top:40px}
.bar-top{display:flex;justify-content:space-between;align-items:baseline}
.kicker{margin:0;color:var(--soft);font-size:13px;letter-spacing:.02em}
h1{font-size:21px;line-height:1.3;font-weight:600;margin:2px 0 14px}
.answer{font-size:31px;line-height:1.25;font-weight:400;letter-spacing:-.012em;margin:0 0 16px;max-width:31em;text-wrap:balance}
.lead{max-width:44em;color:var(--soft);margin:0 0 16px}
h2{font-size:19px;font-weight:600;margin:0 0 14px}
h3{font-size:15px;font-weight:600;margin:18px 0 6px}
section{margin-top:44px;padding-top:22px;border-top:1px solid var(--hair)}
p{margin:0 0 8px}
a{color:inherit;text-decoration-color:var(--faint);text-underline-offset:3px}
b{font-weight:600}
button{font:inherit;font-size:13px;color:var(--soft);background:none;border:1px solid var(--hair);border-radius:5px;padding:2px 9px;cursor:pointer}
button:hover{color:var(--ink);border-color:var(--faint)}
:focus-visible{outline:2px solid var(--s1);outline-offset:2px;border-radius:3px}
.facts{display:flex;flex-wrap:wrap;gap:6px 30px;margin:18px 0 0;font-size:14px}
.facts div{display:flex;gap:7px}
.facts dt{color:var(--soft)}.facts dd{margin:0}
.notice{margin:14px 0 0;font-size:14px;color:var(--warn)}
.note,.legend{color:var(--soft);font-size:13.5px}
figure{margin:0}
figcaption{font-size:14px;margin-bottom:4px}
figcaption span{color:var(--soft);margin-left:6px}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,460px),1fr));gap:20px 34px}
.panel+.panel{margin-top:34px}
.plot{position:relative}
svg{display:block;width:100%;height:auto;overflow:visible}
.chart svg{touch-action:pan-y;cursor:crosshair}
.chart text{font-size:12px;fill:var(--soft)}
.grid path{stroke:var(--hair);stroke-width:1;fill:none;shape-rendering:crispEdges}
.grid .minor{stroke:var(--hair2)}.grid .beyond{stroke-dasharray:2 3}.grid .base{stroke:var(--faint)}
.grid .title{fill:var(--soft)}
.line{fill:none;stroke:var(--c);stroke-width:1.9;stroke-linejoin:round;stroke-linecap:round}
.s circle{fill:var(--c)}
.s,.name,.bar{transition:opacity .12s}
.focus .s:not(.on),.focus .name:not(.on){opacity:.16}
.focus .marks{opacity:.3}
.name text{fill:var(--c);font-size:12.5px;font-weight:600}
.name{cursor:default}.name path{stroke:var(--c);stroke-width:.8;opacity:.45;fill:none}
.ring{fill:none;stroke:var(--ink);stroke-width:1.1}
.badge{fill:var(--paper);stroke:var(--faint);stroke-width:.8}
.mark text{font-size:10px;fill:var(--ink)}
.cross{stroke:var(--faint);stroke-width:1;visibility:hidden}
.hovered .cross{visibility:visible}
.dots circle{stroke:var(--paper);stroke-width:1.5}
.crossings{margin:8px 0 0;padding:0;list-style:none;counter-reset:c;display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,440px),1fr));gap:3px 34px;font-size:13.5px}
.crossings li{counter-increment:c;display:block;padding-left:24px;position:relative}
.crossings li:before{content:counter(c);position:absolute;left:0;top:2px;width:16px;height:16px;line-height:15px;text-align:center;font-size:10px;border:1px solid var(--faint);border-radius:8px}
.crossings span{color:var(--soft)}
.key{display:inline-block;width:10px;height:10px;margin:0 5px 0 2px;border-radius:2px;vertical-align:-1px}
i.compute{background:var(--compute)}i.exposed{background:var(--exposed)}i.communication{background:var(--hidden)}
.bars+.bars{margin-top:22px}
.bars figcaption{margin-bottom:8px}
.bars .bar{display:grid;grid-template-columns:146px minmax(120px,1fr) 330px;gap:12px;align-items:center;padding:2.5px 0;font-size:14px}
.bar .who{color:var(--c);font-weight:600;white-space:nowrap;overflow:hidden;text-overflow:ellipsis}
.bar .track{display:flex;height:15px}
.bar .track i{display:block;height:100%;min-width:0}
.bar .track i:first-child{border-radius:2px 0 0 2px}.bar .track i:last-child{border-radius:0 2px 2px 0}
.bar .value span{color:var(--soft);font-size:13px}
.legend span{margin-right:18px;white-space:nowrap}
.legend label{white-space:nowrap;cursor:pointer}
.timeline{margin-top:20px;break-inside:avoid}
.timeline figcaption b{color:var(--c)}
.timeline .body{position:relative;padding-bottom:19px}
.lane{display:grid;grid-template-columns:74px 1fr;align-items:center;margin-top:3px}
.lane .who{color:var(--soft);font-size:12.5px;white-space:nowrap}
.strip{height:24px;background:var(--track);position:relative;cursor:crosshair}
.strip.compute{height:20px}
.strip svg{width:100%;height:100%}
.strip path.bar{fill:var(--hidden)}
.strip.compute path.bar{fill:var(--compute)}
.strip.copy path.bar{fill:var(--faint)}
.strip path.exposed{fill:var(--exposed);opacity:.92}
.strip .at{position:absolute;top:0;bottom:0;border:1.5px solid var(--ink);pointer-events:none;min-width:3px}
.steps{position:absolute;left:74px;right:0;top:0;bottom:17px;pointer-events:none}
.steps i{position:absolute;top:0;bottom:0;border-left:1px dashed var(--soft);opacity:.6}
.times{position:relative;margin-left:74px;height:0;font-size:12px;color:var(--soft)}
.times span{position:absolute;top:2px;white-space:nowrap;transform:translateX(-50%)}
.times span:first-child{transform:none}.times .last{transform:translateX(-100%)}
.same .lane,.same .steps,.same .times{--w:calc((100% - 74px)*var(--share))}
.same .lane{grid-template-columns:74px var(--w)}
.same .steps{right:auto;width:var(--w)}
.same .times{width:var(--w)}
.same .times span:not(:first-child){display:none}
.scroll{overflow:auto;max-height:600px}.bars .bar+.note,section>.note{margin-top:10px}
table{border-collapse:collapse;font-size:13.5px;width:100%}
th,td{padding:3.5px 14px 3.5px 0;text-align:left;white-space:nowrap;border-bottom:1px solid var(--hair2)}
th{font-weight:600;border-bottom-color:var(--faint);position:sticky;top:0;background:var(--paper)}
th button{border:0;padding:0;color:inherit;font-weight:600;font-size:inherit}
th button:after{content:"";display:inline-block;width:.9em;text-align:center}
th[aria-sort=ascending] button:after{content:"\\2191"}
th[aria-sort=descending] button:after{content:"\\2193"}
.n{text-align:right}
th.n,td.n{padding-right:22px}
th.n button:after{margin-right:-.9em}
td:last-child{font-family:ui-monospace,"SF Mono",Menlo,Consolas,"Liberation Mono",monospace;font-size:12px;color:var(--soft)}
tbody tr:hover{background:var(--raised)}
.columns{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr));gap:0 44px}
.columns h3:first-child{margin-top:0}
ul{margin:0;padding-left:18px}li span{color:var(--soft)}
code,pre{font-family:ui-monospace,"SF Mono",Menlo,Consolas,"Liberation Mono",monospace;font-size:12.5px}
.code{position:relative}
.copy{position:absolute;right:8px;top:8px;background:var(--raised)}
pre{background:var(--raised);border-radius:6px;padding:13px 16px;margin:0;overflow-x:auto;line-height:1.5}
footer{color:var(--soft);font-size:13px;padding-top:34px;padding-bottom:40px}
#tip{position:fixed;z-index:9;pointer-events:none;background:var(--paper);color:var(--ink);border:1px solid var(--hair);border-radius:6px;box-shadow:0 4px 18px rgb(0 0 0/.16);padding:7px 10px;font-size:13px;line-height:1.4;max-width:340px}
#tip table{width:auto}#tip td{border:0;padding:0 0 0 10px;font-family:inherit;font-size:13px;color:inherit}#tip td:first-child{padding:0;font-weight:600}
#tip .h{font-weight:600;margin-bottom:2px}
#tip span{color:var(--soft)}
@media(max-width:760px){header,main,footer{padding-left:16px;padding-right:16px}header{padding-top:24px}.answer{font-size:24px}.bars .bar{grid-template-columns:1fr;gap:1px;padding:5px 0}}
@media print{.scroll{max-height:none;overflow:visible}body{font-size:11pt}header,main,footer{max-width:none;padding:0}button,.legend label{display:none}section{margin-top:24px;break-inside:auto}.panel,.bars,tr{break-inside:avoid}th{position:static}pre{white-space:pre-wrap}.answer{font-size:20pt}.pair{grid-template-columns:1fr 1fr}*{-webkit-print-color-adjust:exact;print-color-adjust:exact}}
`
