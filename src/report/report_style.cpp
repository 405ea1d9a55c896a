#include "report/report_style.h"

namespace dmc::report {

// Series colours are from the Okabe-Ito palette (told apart with any colour vision), darkened for
// text on white and lightened for text on the dark ground.
const char kReportStyle[] = R"css(
:root {
  color-scheme: light dark;
  --page: #f6f7f9; --card: #ffffff; --ink: #171b21; --soft: #5b6573; --rule: #e3e7ec;
  --s0: #626c79; --s1: #0072b2; --s2: #c85200; --s3: #00795a; --s4: #a34f82; --s5: #8a6d00;
  --s6: #3a8fb7; --s7: #b03a48;
  --heat-low: #eef2ea; --heat-mid: #4fa9b0; --heat-high: #123f72;
  --on-low: #1d2733; --on-high: #ffffff;
  --band: #f6e6b4;
  --shadow: 0 1px 2px rgb(20 30 45 / 6%), 0 6px 20px rgb(20 30 45 / 5%);
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #0f1318; --card: #171c23; --ink: #e8ecf1; --soft: #98a3b1; --rule: #29313b;
    --s0: #9aa5b3; --s1: #5eb3f0; --s2: #ff9a57; --s3: #3fc79b; --s4: #e08fbd; --s5: #e6c34a;
    --s6: #7fd0ee; --s7: #ff8f98;
    --heat-low: #202a35; --heat-mid: #1c6b78; --heat-high: #c4f0c2;
    --on-low: #e8ecf1; --on-high: #0d1a22;
    --band: #463c1c;
    --shadow: none;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  -webkit-font-smoothing: antialiased;
}
main { max-width: 1120px; margin: 0 auto; padding: 52px 28px 40px; }
h1 { margin: 0; font-size: 38px; line-height: 1.15; letter-spacing: -0.022em; font-weight: 720; }
h2 { margin: 56px 0 4px; font-size: 22px; letter-spacing: -0.012em; font-weight: 680; }
h3 { margin: 0; font-size: 15px; font-weight: 650; }
p { margin: 0; }
.subtitle { margin-top: 10px; max-width: 46em; font-size: 18px; color: var(--soft); }
.lead { max-width: 50em; margin-bottom: 18px; color: var(--soft); }
.facts { display: flex; flex-wrap: wrap; gap: 8px 28px; margin: 22px 0 0; font-size: 14px; }
.facts div { display: flex; gap: 7px; }
.facts dt { color: var(--soft); }
.facts dd { margin: 0; font-weight: 600; font-variant-numeric: tabular-nums; }
.grid { display: grid; gap: 20px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); }
.card {
  min-width: 0; margin: 0; padding: 20px 22px; border: 1px solid var(--rule); border-radius: 12px;
  background: var(--card); box-shadow: var(--shadow);
}
.card .note { margin: 2px 0 14px; font-size: 13.5px; color: var(--soft); }
.headline { display: grid; gap: 16px; margin-top: 34px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 235px), 1fr)); }
.big { font-size: 46px; line-height: 1.05; font-weight: 740; letter-spacing: -0.03em; font-variant-numeric: tabular-nums; }
.big + h3 { margin-top: 8px; }
.headline .note { margin-bottom: 0; }
.scroll { overflow-x: auto; padding: 6px 8px; }
table { width: 100%; border-collapse: collapse; font-size: 15px; font-variant-numeric: tabular-nums; }
th, td { padding: 11px 14px; text-align: right; vertical-align: top; white-space: nowrap; }
th { font-size: 13px; font-weight: 600; color: var(--soft); vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; }
tbody tr { border-top: 1px solid var(--rule); }
td:first-child { font-weight: 650; }
td small { display: block; font-size: 12.5px; font-weight: 400; color: var(--soft); }
.wide { grid-column: 1 / -1; }
.compact td { padding: 5px 14px; font-weight: 400; }
.compact td.best { font-weight: 700; }
td.best > span::after { content: " ★"; color: var(--s2); }
.chip { display: inline-block; width: 10px; height: 10px; margin-right: 9px; border-radius: 3px; background: currentcolor; }
svg.chart { display: block; width: 100%; height: auto; overflow: visible; font-size: 12px; }
svg text { fill: var(--soft); font-variant-numeric: tabular-nums; }
svg .axis { font-size: 12px; }
svg .middle { text-anchor: middle; }
svg .end { text-anchor: end; }
svg .grid { stroke: var(--rule); stroke-width: 1; }
svg .base { stroke: var(--soft); stroke-width: 1; opacity: 0.6; }
svg .line { fill: none; stroke: currentcolor; stroke-width: 2.25; stroke-linejoin: round; stroke-linecap: round; }
svg .dashed { stroke-width: 1.75; stroke-dasharray: 5 5; }
svg .faint { stroke-width: 1; opacity: 0.3; }
svg .band { stroke: var(--band); stroke-width: 16; }
svg .whisker { stroke: currentcolor; stroke-width: 1.25; opacity: 0.55; }
svg .dot { fill: currentcolor; stroke: var(--card); stroke-width: 1.5; }
svg .label { fill: currentcolor; font-weight: 650; }
svg .bar { fill: currentcolor; rx: 4px; }
svg .bar-label { font-size: 13px; }
svg .bar-value { font-size: 14px; font-weight: 650; fill: var(--ink); }
svg .cell { rx: 3px; }
svg .unknown { fill: var(--rule); }
svg .value { text-anchor: middle; font-size: 12px; font-weight: 550; pointer-events: none; }
svg .low { fill: var(--on-low); }
svg .high { fill: var(--on-high); }
.s0 { color: var(--s0); } .s1 { color: var(--s1); } .s2 { color: var(--s2); }
.s3 { color: var(--s3); } .s4 { color: var(--s4); } .s5 { color: var(--s5); }
.s6 { color: var(--s6); } .s7 { color: var(--s7); }
.samples { display: grid; gap: 20px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 330px), 1fr)); }
pre {
  margin: 12px 0 0; overflow-wrap: anywhere; white-space: pre-wrap; tab-size: 4;
  font: 12.5px/1.6 ui-monospace, "SF Mono", "Cascadia Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
}
pre .prompt { color: var(--soft); }
.empty { padding: 40px 0; text-align: center; color: var(--soft); }
footer { margin-top: 52px; padding-top: 18px; border-top: 1px solid var(--rule); font-size: 13.5px; color: var(--soft); }
@media (max-width: 720px) {
  main { padding: 34px 16px 28px; }
  h1 { font-size: 30px; }
  .subtitle { font-size: 16px; }
  .big { font-size: 38px; }
  .scroll { padding: 4px 2px; }
  table { font-size: 14px; }
  th, td { padding: 9px 7px; }
  th { white-space: normal; }
  td small { font-size: 11.5px; }
}
@media (max-width: 560px) {
  .scroll { overflow-x: visible; padding: 4px 14px; }
  thead { display: none; }
  tbody, tr, td { display: block; }
  tbody tr { padding: 10px 0; }
  tbody tr:first-child { border-top: none; }
  td, .compact td { display: flex; justify-content: space-between; gap: 16px; padding: 3px 0; white-space: normal; }
  td::before { content: attr(data-label); font-size: 13px; font-weight: 400; color: var(--soft); text-align: left; }
  td:first-child::before { content: none; }
  td small { display: inline; margin-left: 8px; }
}
@media print { body { background: none; } .card { break-inside: avoid; box-shadow: none; } }
)css";

}  // namespace dmc::report
