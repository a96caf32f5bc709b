"""The report's page: its style, its few lines of script, and the places that `report` fills in. Data only."""

from __future__ import annotations

from string import Template

from BrainFusionLib.report.pictures import EDGE_RGB

STYLE = """
:root { --page: #fff; --text: #1b1f24; --soft: #5b6570; --line: #d5dae0; --card: #f4f6f8;
  --green: #14713d; --amber: #8a5a00; --red: #b3261e; --none: #5b6570; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --page: #14171b; --text: #e6e9ed; --soft: #9aa4af; --line: #333a42;
  --card: #1d2127; --green: #5fd08e; --amber: #f2b84b; --red: #ff8a80; --none: #9aa4af; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem 1.25rem 2rem; max-width: 1180px; background: var(--page); color: var(--text);
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
h1 { font-size: 1.35rem; margin: 0; overflow-wrap: anywhere; } h2 { font-size: 1rem; margin: 0 0 .35rem; }
p { margin: .2rem 0; } ul { margin: .2rem 0; padding-left: 1.1rem; } section { margin: 1.1rem 0; }
h2 .soft { font-weight: normal; margin-left: .5rem; }
.facts { list-style: none; padding: 0; margin: .2rem 0 0; color: var(--soft); font-size: .87rem; }
.facts li { display: inline-block; margin-right: 1rem; } .soft { color: var(--soft); font-size: .87rem; }
.verdict { --tint: var(--none); display: flex; gap: 1rem; border: 2px solid var(--tint); border-left-width: 10px;
  border-radius: 8px; padding: .7rem 1rem; margin: .8rem 0; background: var(--card); }
.verdict.green { --tint: var(--green); } .verdict.amber { --tint: var(--amber); } .verdict.red { --tint: var(--red); }
.verdict h2 { font-size: 1.15rem; margin: 0; color: var(--tint); }
.verdict svg { flex: 0 0 46px; height: 46px; fill: none; stroke: var(--tint); stroke-width: 3.5;
  stroke-linecap: round; stroke-linejoin: round; }
.planes { display: flex; gap: 8px; } .planes > div { min-width: 0; }
.picture { position: relative; margin: 0; background: #000; border-radius: 4px; overflow: hidden; line-height: 0; }
.picture img { width: 100%; height: auto; display: block; }
.picture img.edges, .picture img.after { position: absolute; inset: 0; height: 100%; }
.no-edges .edges { display: none !important; }
.picture b { position: absolute; line-height: 1; font-size: .8rem; color: #fff;
  text-shadow: 0 0 3px #000, 0 0 3px #000; }
.at-left { left: 6px; top: calc(50% - .4rem); } .at-right { right: 6px; top: calc(50% - .4rem); }
.at-top { top: 6px; left: calc(50% - .3rem); } .at-bottom { bottom: 6px; left: calc(50% - .3rem); }
.bar { position: absolute; right: 8px; bottom: 8px; border-bottom: 2px solid #fff; color: #fff; text-align: center;
  font: normal .7rem/1.3 inherit; font-style: normal; line-height: 1.3; text-shadow: 0 0 3px #000; }
.strip { display: grid; grid-template-columns: repeat(6, 1fr); gap: 6px; }
.strip p { text-align: center; color: var(--soft); font-size: .8rem; margin: 0; }
.two { display: grid; grid-template-columns: 1fr 1fr; gap: 0 2rem; align-items: start; } .two > * { min-width: 0; }
.compare { --share: 50%; max-width: 420px; } .compare .after { clip-path: inset(0 calc(100% - var(--share)) 0 0); }
.divider { position: absolute; top: 0; bottom: 0; left: var(--share); width: 2px; margin-left: -1px;
  background: $edge; }
.compare input { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; opacity: 0; cursor: ew-resize; }
.compare:focus-within { outline: 3px solid $edge; outline-offset: 2px; }
.name-after { left: 8px; bottom: 8px; } .name-before { right: 8px; bottom: 8px; }
.histogram { width: 100%; max-width: 420px; font-size: 12px; } .histogram image { image-rendering: pixelated; }
.histogram text { fill: currentColor; text-anchor: middle; } .histogram text.y { text-anchor: end; }
.histogram path { stroke: currentColor; }
table { border-collapse: collapse; font-size: .87rem; font-variant-numeric: tabular-nums; width: 100%; }
th { text-align: left; font-weight: normal; color: var(--soft); overflow-wrap: anywhere; }
td { text-align: right; overflow-wrap: anywhere; }
th, td { padding: .18rem .3rem; border-bottom: 1px solid var(--line); } .matrix { width: auto; margin: .4rem 0; }
.matrix td { white-space: nowrap; padding: .18rem .7rem; } summary { cursor: pointer; font-weight: 600; }
.views { display: flex; gap: 8px; align-items: flex-start; } .views figure { margin: 0; flex: 1 1 0; min-width: 0; }
.views canvas { width: 100%; height: auto; background: #000; border-radius: 4px; cursor: crosshair;
  touch-action: none; }
.views canvas:focus-visible { outline: 3px solid $edge; } .knobs { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem;
  align-items: center; margin: .4rem 0; font-size: .87rem; } .knobs label { float: none; color: inherit; }
.knobs span { display: inline-flex; gap: .3rem; align-items: center; } .knobs input[type=range] { width: 9rem; }
label { float: right; color: var(--soft); font-size: .87rem; cursor: pointer; }
@media (max-width: 700px) { .views { flex-direction: column; }
  .planes { flex-direction: column; } .planes > div { flex: none !important; }
  .strip { grid-template-columns: repeat(3, 1fr); } .two { grid-template-columns: 1fr; } label { float: none; } }
@media print { @page { size: A4; margin: 10mm; } :root { font-size: 11px; }
  body { padding: 0; max-width: none; font-size: .95rem; }
  .planes { flex-direction: row; width: 74%; } .planes.lined { width: 96%; } .planes > div { flex-basis: 0 !important; }
  section { margin: .6rem 0; break-inside: avoid; } label, .screen { display: none; }
  .two { grid-template-columns: 1fr 1fr; } .strip { grid-template-columns: repeat(6, 1fr); }
  .compare { max-width: 62mm; } .histogram { max-width: 72mm; }
  .picture, .verdict { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
""".replace("$edge", f"rgb{EDGE_RGB}")

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>BrainFusion: ${title}</title>
<style>${style}</style>
</head>
<body>
<header><h1>BrainFusion: ${title}</h1><ul class="facts">${facts}</ul></header>
<main>
${verdict}
<p class="soft"><b>${warning}</b> ${where}</p>
<label><input type="checkbox" id="show-edges" checked> show the CT outlines</label>
${rows}
${viewer}
<section><h2>Fused, with the CT bone outline, from feet to head</h2><div class="strip">${strip}</div></section>
<div class="two">
<section><h2>Before and after <span class="soft screen">drag, or use the arrow keys</span></h2>${slider}</section>
<section><h2>Which CT value meets which MRI value</h2>${histogram}
<p class="soft">Few and compact spots mean that the same tissue meets everywhere; a smear means that it does not.
Brightness is logarithmic in the count.</p></section>
</div>
<div class="two">
<div><section><h2>Transform</h2>${transform}</section>${notes}</div>
<div>${quality}${timings}</div>
</div>
<details><summary>Settings</summary>${settings}</details>
</main>
<script>
const compare = document.querySelector(".compare");
compare.querySelector("input").addEventListener("input", (event) => {
  compare.style.setProperty("--share", event.target.value + "%");
});
document.getElementById("show-edges").addEventListener("change", (event) => {
  document.body.classList.toggle("no-edges", !event.target.checked);
});
</script>
</body>
</html>
""")
