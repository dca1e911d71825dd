"""The style sheet of report.html: light and dark, wide and narrow, on paper too."""

STYLE = """
:root { color-scheme: light dark;
  --paper: #fbfaf8; --card: #ffffff; --ink: #1b2230; --soft: #5b6575; --rule: #e4e2dc;
  --first: #0a7285; --second: #c2410c; --third: #8a8f98; --good: #0a7285; --bad: #c2410c; --tint: #e6f3f5; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #13161b; --card: #1a1e25; --ink: #e8eaee; --soft: #9aa4b2; --rule: #2c323c;
  --first: #4cc3d9; --second: #ff9a57; --third: #7d8694; --good: #4cc3d9; --bad: #ff9a57; --tint: #16303a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 2.4rem 1.2rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; letter-spacing: -.01em; overflow-wrap: anywhere; }
h2 { font-size: 1.22rem; margin: 2.8rem 0 .3rem; }
h3 { font-size: .95rem; margin: 0 0 .5rem; }
p { margin: .3rem 0 .9rem; max-width: 46rem; }
.lead { font-size: 1.22rem; max-width: 44rem; margin: 1.1rem 0 1.4rem; }
.soft, figcaption, .note { color: var(--soft); }
.note { font-size: .9rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(max(9.5rem, 22%), 1fr)); gap: .8rem; margin: 0; }
.tile { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: .8rem .9rem; }
.tile dt { color: var(--soft); font-size: .82rem; }
.tile dd { margin: .1rem 0 0; font-size: 1.55rem; font-weight: 650; font-variant-numeric: tabular-nums; }
.tile .small { font-size: .8rem; font-weight: 400; color: var(--soft); display: block; line-height: 1.35; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 1rem; margin-top: 1rem;
  align-items: start; }
figure { margin: 0; background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 1rem; }
figcaption { font-size: .86rem; margin-top: .5rem; }
.scroll { overflow-x: auto; }
.wide { width: min(100vw - 2rem, 1400px); position: relative; left: 50%; transform: translateX(-50%); }
svg { display: block; width: 100%; height: auto; }
svg.narrow { max-width: 36rem; margin: 0 auto; }
svg.heat { min-width: 40rem; margin: 0 auto; }
figure:not(.wide) svg.heat { max-width: 46rem; }
.wide svg.heat { min-width: 1240px; }
svg .label { font-size: 12px; fill: var(--ink); font-variant-numeric: tabular-nums; }
svg .faint { fill: var(--soft); }
svg .grid { stroke: var(--rule); }
svg .mark { stroke: var(--soft); stroke-dasharray: 3 3; }
svg .diagonal { stroke: var(--soft); stroke-width: 1.5; stroke-dasharray: 5 4; }
svg .whisker { stroke: var(--first); stroke-width: 3; stroke-linecap: round; }
svg .line { fill: none; stroke-width: 2.2; stroke-linejoin: round; stroke-linecap: round; }
svg .line.first { stroke: var(--first); } svg .line.second { stroke: var(--second); }
svg .line.third { stroke: var(--third); }
svg .dot.first { fill: var(--first); } svg .dot.second { fill: var(--second); } svg .dot.third { fill: var(--third); }
svg .bar { fill: var(--first); } svg .sheet { fill: none; stroke: var(--rule); }
svg .right { fill: var(--good); } svg .wrong { fill: var(--bad); }
svg .count { fill: var(--ink); } svg .count.strong { fill: var(--card); }
.legend { display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; font-size: .86rem; margin-bottom: .4rem;
  color: var(--soft); }
.legend span::before { content: ""; display: inline-block; width: .9em; height: .9em; border-radius: 3px;
  margin-right: .4em; vertical-align: -.08em; background: var(--swatch); }
.first { --swatch: var(--first); } .second { --swatch: var(--second); } .third { --swatch: var(--third); }
table { border-collapse: collapse; width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); font-size: .86rem; padding-bottom: .4rem; }
th, td { text-align: left; padding: .32rem .6rem .32rem 0;
  border-bottom: 1px solid var(--rule); vertical-align: middle; }
th { font-weight: 600; } thead th { color: var(--soft); font-size: .82rem; font-weight: 500; }
td.number, th.number { text-align: right; white-space: nowrap; }
.meter { display: block; min-width: 5rem; }
.meter i { display: block; height: .62rem; border-radius: 4px; background: var(--swatch); width: var(--share);
  min-width: 1px; }
th[scope="row"] { font-weight: 500; width: 34%; }
.photos { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.2rem, 1fr)); gap: .9rem; padding: 0;
  margin: 0; list-style: none; }
.photos li { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; overflow: hidden;
  font-size: .85rem; line-height: 1.4; }
.photos img { width: 100%; aspect-ratio: 1; object-fit: cover; display: block; background: var(--rule); }
.photos .key { color: var(--soft); font-size: .66rem; }
.photos div { padding: .5rem .65rem .7rem; overflow-wrap: anywhere; }
.photos b { color: var(--bad); font-weight: 600; }
details { margin-top: .9rem; } summary { cursor: pointer; color: var(--first); }
code { font: .88em ui-monospace, SFMono-Regular, Menlo, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
.banner { border-left: 4px solid var(--first); background: var(--tint); border-radius: 0 10px 10px 0;
  padding: .8rem 1.1rem; margin: 1rem 0; }
.banner p { margin: 0; }
@media (max-width: 30rem) { main { padding: 1.4rem .8rem 3rem; } h1 { font-size: 1.5rem; }
  .pair { grid-template-columns: 1fr; } }
@media print { body { background: #fff; } figure, .tile { break-inside: avoid; } details { display: none; } }
"""
