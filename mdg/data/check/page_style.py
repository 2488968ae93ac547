"""Looks of the page, in light and dark."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark; --ground: #f6f7f9; --card: #fff; --ink: #1c2330; --soft: #5c6675; --line: #e1e5ea;
  --grid: #e9ecf0; --bad: #b3261e; --bad-ground: #fdecea; --warn: #8a5a00; --warn-ground: #fff4dc; --good: #1b6e3c;
  --good-ground: #e6f4ea; }
@media (prefers-color-scheme: dark) { :root { --ground: #12151b; --card: #1b2028; --ink: #e6e9ee; --soft: #9aa4b2;
  --line: #2d343f; --grid: #29303a; --bad: #ff9a92; --bad-ground: #3c1f1d; --warn: #f1c465; --warn-ground: #3a2f14;
  --good: #86d9a3; --good-ground: #17311f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI",
  Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 32px 20px 48px; }
h1 { font-size: 27px; line-height: 1.2; margin: 0; }
h2 { font-size: 19px; margin: 36px 0 12px; }
h3 { font-size: 15px; margin: 0 0 10px; }
p { margin: 0 0 10px; }
code, pre, .path { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: 13px; }
.soft { color: var(--soft); }
.top { display: flex; flex-wrap: wrap; gap: 12px 16px; align-items: center; margin-bottom: 6px; }
.verdict { padding: 3px 12px; border-radius: 999px; font-weight: 600; font-size: 14px; }
.bad { color: var(--bad); background: var(--bad-ground); }
.warn { color: var(--warn); background: var(--warn-ground); }
.good { color: var(--good); background: var(--good-ground); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 16px 18px;
  overflow-x: auto; }
.grid { display: grid; gap: 16px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 1fr)); }
.grid.samples { grid-template-columns: repeat(auto-fill, minmax(min(100%, 500px), 1fr)); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 5px 14px 5px 0; border-top: 1px solid var(--line); vertical-align: top; }
thead th, thead td { border-top: 0; }
tbody th { font-weight: 500; color: var(--soft); white-space: nowrap; }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px; margin: 12px 0 0; }
.facts dt { color: var(--soft); }
.facts dd { margin: 0; overflow-wrap: anywhere; }
.bars { display: grid; grid-template-columns: max-content minmax(70px, 1fr) max-content max-content; gap: 5px 10px;
  align-items: center; font-size: 13px; font-variant-numeric: tabular-nums; }
.bars .head { color: var(--soft); font-size: 12px; }
.bars .number { text-align: right; }
.bars .none { color: var(--warn); font-weight: 600; }
.axis { position: relative; height: 1.3em; }
.axis span { position: absolute; transform: translateX(-50%); }
.track { height: 15px; background: repeating-linear-gradient(90deg, var(--grid) 0 1px, transparent 1px 20%);
  border-right: 1px solid var(--grid); }
.bar { height: 100%; border: 1px solid rgba(127, 127, 127, .75); border-radius: 2px; }
.swatch { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin-right: 6px;
  border: 1px solid rgba(127, 127, 127, .8); vertical-align: -1px; }
details { margin-bottom: 10px; }
details > summary { cursor: pointer; font-weight: 600; }
details ul { margin: 8px 0 0; padding: 0; list-style: none; max-height: 26em; overflow-y: auto; }
details li { padding: 5px 0; border-top: 1px solid var(--line); overflow-wrap: anywhere; }
.tag { display: inline-block; padding: 0 8px; margin-right: 8px; border-radius: 999px; font-size: 12px;
  border: 1px solid var(--line); color: var(--soft); white-space: nowrap; }
pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; }
figure { margin: 0; }
.triplet { display: grid; grid-template-columns: repeat(3, 1fr); gap: 6px; }
.triplet img { width: 100%; height: auto; display: block; border-radius: 4px; background: #000; }
.triplet span { font-size: 12px; color: var(--soft); }
figcaption { margin-bottom: 8px; display: flex; flex-wrap: wrap; gap: 4px 0; align-items: center; }
figcaption .path { font-weight: 600; margin-right: 10px; overflow-wrap: anywhere; }
.classes { margin-top: 6px; font-size: 12px; color: var(--soft); display: flex; flex-wrap: wrap; gap: 2px 12px; }
footer { margin-top: 40px; color: var(--soft); font-size: 13px; }
""".strip()
