"""The style sheet of the pages: light and dark, wide and narrow, without any other file."""

from __future__ import annotations

from typing import Final

PAGE_STYLE: Final = """
:root {
  color-scheme: light dark;
  --paper: #fcfcfa; --card: #ffffff; --ink: #1d2026; --soft: #646974; --rule: #e3e3de;
  --link: #1f5aa6; --train: #3a6fb5; --validation: #d98b2b; --test: #3d9270; --none: #8b909a;
  --edge: rgba(0, 0, 0, .08);
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14161a; --card: #1b1e23; --ink: #e7e8ea; --soft: #9ba1ac; --rule: #2c3037;
    --link: #8ab6f0; --train: #6d9fe0; --validation: #e3a551; --test: #63b794; --none: #7d838e;
    --edge: rgba(255, 255, 255, .10);
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; max-width: 68rem; padding: 3rem 1.5rem 4rem;
  background: var(--paper); color: var(--ink);
  font: 16px/1.55 ui-sans-serif, system-ui, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans",
    "Liberation Sans", Arial, sans-serif;
  font-variant-numeric: tabular-nums; text-rendering: optimizeLegibility;
}
h1, h2, h3, h4, p, dl, dd, figure, table { margin: 0; }
h1 { font-size: 2rem; line-height: 1.2; font-weight: 680; letter-spacing: -.02em; }
h2 { font-size: 1.55rem; line-height: 1.25; font-weight: 660; letter-spacing: -.015em; }
h3 { font-size: .95rem; font-weight: 640; margin: 2.4rem 0 .9rem; }
h4 { font-size: .95rem; font-weight: 600; margin: 1.6rem 0 .4rem; }
h4 small { font-size: .82rem; font-weight: 400; color: var(--soft); margin-left: .3rem; }
a { color: var(--link); text-decoration: none; }
a:hover { text-decoration: underline; }
code { font: .86em/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace;
  overflow-wrap: anywhere; }
.soft { color: var(--soft); }
.lead { margin-top: .45rem; font-size: 1.05rem; color: var(--soft); max-width: 46rem; }
.scroll { overflow-x: auto; }

table { border-collapse: collapse; font-size: .9rem; }
th { font-weight: 550; color: var(--soft); text-align: left; }
th, td { padding: .42rem 1.4rem .42rem 0; border-bottom: 1px solid var(--rule);
  vertical-align: top; }
th:last-child, td:last-child { padding-right: 0; }
.number { text-align: right; white-space: nowrap; }
tfoot td { border-bottom: 0; font-weight: 600; }
.all { width: 100%; margin-top: 2rem; }

section { margin-top: 3.5rem; padding-top: 2.2rem; border-top: 1px solid var(--rule); }
section.only { margin-top: 0; padding-top: 0; border-top: 0; }
.two { display: grid; grid-template-columns: 1fr 1fr; gap: 0 3.5rem; }
.two > * { min-width: 0; }

.share { display: flex; gap: 2px; height: .75rem; margin-bottom: .8rem; }
.share i { border-radius: 2px; min-width: 3px; }
.dot { display: inline-block; width: .6rem; height: .6rem; border-radius: 50%;
  margin-right: .5rem; }
.train { background: var(--train); } .validation { background: var(--validation); }
.test { background: var(--test); } .none { background: var(--none); }
.facts { width: 100%; }

.bars { display: flex; align-items: flex-end; gap: 2px; height: 8.5rem;
  border-bottom: 1px solid var(--soft); }
.bars > div { flex: 1 1 0; display: flex; flex-direction: column-reverse; min-width: 2px; }
.bars i { display: block; }
.bars > div i:last-child { border-radius: 2px 2px 0 0; }
.axis { display: flex; justify-content: space-between; font-size: .78rem; color: var(--soft);
  margin-top: .25rem; }
figcaption { font-size: .82rem; color: var(--soft); margin-top: .5rem; }
figure.sizes { margin-top: .2rem; }

.strip { display: grid; grid-template-columns: 11.5rem 1fr; gap: .25rem 1.2rem;
  align-items: center; padding: .34rem 0; }
.strip.again { padding-top: 0; margin-top: calc(4px - .34rem); }
.strip .name { font-size: .875rem; line-height: 1.35; overflow-wrap: anywhere; min-width: 0; }
.strip .name small { display: block; font-size: .78rem; color: var(--soft); }
.strip .name .dot { width: .5rem; height: .5rem; margin-right: .4rem; }
.tiles { display: grid; grid-template-columns: repeat(var(--tiles), minmax(0, 1fr));
  gap: 4px; min-width: 0; }
.tiles img { display: block; width: 100%; height: auto; aspect-ratio: 1; border-radius: 3px;
  background: var(--rule); box-shadow: 0 0 0 1px var(--edge); }

details { margin-top: 1.2rem; border: 1px solid var(--rule); border-radius: 6px;
  background: var(--card); }
summary { padding: .65rem 1rem; cursor: pointer; font-weight: 580; font-size: .92rem; }
summary .soft { font-weight: 400; }
details > div { padding: 0 1rem .9rem; }
details table { width: 100%; }
details td, details th { padding-top: .36rem; padding-bottom: .36rem; }
details tr:last-child > * { border-bottom: 0; }
details td { overflow-wrap: anywhere; }
details th[scope=row] { width: 11rem; }
footer { margin-top: 3.5rem; font-size: .82rem; color: var(--soft); }

@media (max-width: 46rem) {
  body { padding: 1.6rem 1rem 3rem; }
  h1 { font-size: 1.6rem; }
  h2 { font-size: 1.35rem; }
  section { margin-top: 2.4rem; padding-top: 1.6rem; }
  .two, .strip { grid-template-columns: minmax(0, 1fr); }
  .strip { padding: .5rem 0; }
  .strip.again { margin-top: -.3rem; }
  .strip.again .name small { margin-left: 0; }
  .all .wide { display: none; }
  .strip .name small { display: inline; margin-left: .5rem; }
  .tiles { grid-template-columns: repeat(4, 1fr); }
  details th[scope=row] { width: 7.5rem; }
  th, td { padding-right: .9rem; }
}
@media print {
  body { max-width: none; padding: 0; }
  section, .strip, figure { break-inside: avoid; }
}
"""
