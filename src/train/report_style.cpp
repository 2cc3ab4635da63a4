// SPDX-License-Identifier: MIT
#include "report_page.hpp"

namespace syncbn::train {

// The colours of the arms are those of Okabe & Ito 2008, Color Universal Design, told apart with any colour vision; lighter
// on a dark page. Arms differ by dash and marker, too.
const char* const kReportStyle = R"css(
:root { color-scheme: light dark; --page: #fff; --text: #1b1d21; --soft: #565c66; --rule: #dcdfe4; --card: #f5f6f8;
  --single: #8d949e; --sync: #0072b2; --local: #d55e00; --group0: #008a64; --group1: #b5548f; --group2: #8a6d00;
  --notice: #fff4d6; --notice-edge: #c98a00;
  --part-statistics: #e0a100; --part-message: #c02f66; --part-element: #1f8f8b; --part-rest: #b9bfc8;
  --heat0: #e3ebf4; --heat1: #c6dbef; --heat2: #9ecae1; --heat3: #6baed6; --heat4: #3a8cc1; --heat5: #1c6aaa;
  --heat6: #0b4a83; --heat7: #062c55; }
@media (prefers-color-scheme: dark) {
  :root { --page: #15171b; --text: #e8eaed; --soft: #a7adb7; --rule: #353a43; --card: #1f2329;
    --single: #8f96a1; --sync: #56b4e9; --local: #ff9249; --group0: #2cc79a; --group1: #e48fc4; --group2: #e6c229;
    --notice: #3a2f12; --notice-edge: #e6a817;
    --part-statistics: #e8b73a; --part-message: #f0679a; --part-element: #3fb8b0; --part-rest: #59606c;
    --heat0: #252f3c; --heat1: #22435f; --heat2: #235b86; --heat3: #2c77ae; --heat4: #4c98cf; --heat5: #82bae4;
    --heat6: #b5d8f3; --heat7: #ebf5fd; }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body { margin: 0; background: var(--page); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 28px 16px 48px; overflow-wrap: anywhere; }
h1 { font-size: clamp(1.3rem, 0.9rem + 1.9vw, 1.9rem); line-height: 1.28; margin: 4px 0 16px; }
h2 { font-size: 1.15rem; margin: 40px 0 10px; }
h3 { font-size: 1rem; margin: 0 0 4px; }
p { margin: 8px 0; }
.kicker, .note, figcaption { color: var(--soft); font-size: 0.88rem; }
.kicker { margin: 0; }
.notice { background: var(--notice); border-left: 4px solid var(--notice-edge); padding: 10px 14px; border-radius: 4px; }
.details { margin: 0; padding-left: 1.2em; max-width: 75ch; }
.details li { margin: 4px 0; }
.scroll { overflow-x: auto; border: 1px solid var(--rule); border-radius: 8px;
  background: linear-gradient(to right, var(--page) 10px, transparent) 0 0 / 24px 100% local no-repeat,
    linear-gradient(to left, var(--page) 10px, transparent) 100% 0 / 24px 100% local no-repeat,
    linear-gradient(to right, var(--soft), transparent) 0 0 / 6px 100% scroll no-repeat,
    linear-gradient(to left, var(--soft), transparent) 100% 0 / 6px 100% scroll no-repeat; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { padding: 8px 12px; text-align: right; vertical-align: top; white-space: nowrap; }
th { font-size: 0.84rem; font-weight: 600; color: var(--soft); }
thead th { background: var(--card); min-width: 5.5em; white-space: normal; }
tbody tr { border-top: 1px solid var(--rule); }
tbody tr.first { border-top: 2px solid var(--soft); }
tbody th { color: var(--text); font-size: 1rem; }
th:first-child, td:first-child { text-align: left; }
td small { color: var(--soft); display: block; font-size: 0.8rem; line-height: 1.2; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 360px), 1fr)); gap: 16px; }
figure { margin: 0; padding: 14px; background: var(--card); border-radius: 8px; min-width: 0; }
figure > svg { display: block; width: 100%; max-width: 620px; height: auto; margin: 0 auto; }
.stack { display: grid; gap: 16px; align-content: start; min-width: 0; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; list-style: none; margin: 10px 0; padding: 0; }
.legend li { display: flex; align-items: center; gap: 6px; }
.swatch { width: 34px; height: 14px; flex: none; }
svg text { fill: var(--text); font-size: 13px; font-family: inherit; font-variant-numeric: tabular-nums; }
.grid { stroke: var(--rule); stroke-width: 1; }
.axis { stroke: var(--soft); stroke-width: 1; }
.arm-single { --arm: var(--single); } .arm-sync { --arm: var(--sync); } .arm-local { --arm: var(--local); }
.arm-group0 { --arm: var(--group0); } .arm-group1 { --arm: var(--group1); } .arm-group2 { --arm: var(--group2); }
.band { fill: var(--arm); opacity: 0.18; }
.line { fill: none; stroke: var(--arm); stroke-width: 2.2; stroke-linejoin: round; }
.arm-single .line { stroke-width: 6; opacity: 0.55; } .arm-local .line { stroke-dasharray: 7 4; }
.arm-group0 .line { stroke-dasharray: 2 3; } .arm-group1 .line { stroke-dasharray: 9 3 2 3; }
.mark { fill: var(--arm); stroke: var(--card); stroke-width: 1; }
.arm-single .mark { opacity: 0.55; }
.bar { fill: var(--arm); opacity: 0.8; }
.part-statistics { --part: var(--part-statistics); } .part-message { --part: var(--part-message); }
.part-element { --part: var(--part-element); } .part-rest { --part: var(--part-rest); }
.part { fill: var(--part); stroke: var(--card); stroke-width: 1; }
.patch { background: var(--part); width: 16px; height: 14px; flex: none; border-radius: 2px; }
.heat0 { --part: var(--heat0); } .heat1 { --part: var(--heat1); } .heat2 { --part: var(--heat2); }
.heat3 { --part: var(--heat3); } .heat4 { --part: var(--heat4); } .heat5 { --part: var(--heat5); }
.heat6 { --part: var(--heat6); } .heat7 { --part: var(--heat7); }
.cells { fill: var(--part); shape-rendering: crispEdges; } .tip { fill: transparent; }
section > .charts + .scroll { margin-top: 16px; }
.whisker { stroke: var(--text); stroke-width: 1.5; } .median { stroke: var(--arm); stroke-width: 3; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 4px 18px; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; }
code { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: 0.9em; }
@media (max-width: 480px) { dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: 8px; }
  table, tbody th { font-size: 0.78rem; } th, td { padding: 5px 4px; } td small { font-size: 0.68rem; white-space: normal; }
  thead th { font-size: 0.68rem; min-width: 0; line-height: 1.25; }
  th:first-child { position: sticky; left: 0; background: var(--page); } thead th:first-child { background: var(--card); } }
@media print { body { font-size: 11pt; } figure, tr { break-inside: avoid; } }
)css";

}  // namespace syncbn::train
