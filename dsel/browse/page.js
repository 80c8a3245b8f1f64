"use strict";
// The page of a run. All texts are anybody's: they become text nodes, and Plotly is given nothing but numbers.

const run = JSON.parse(document.getElementById("data").textContent);
const all = run.examples;
const count = all.id.length;
const PAGE = 25; // rows of a table at once
const NEAR = 5;
const LINES = 10; // of the chart
const PALETTE = ["#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#ee8866", "#44bb99", "#77aadd", "#999933"];
const RAMP = ["#440154", "#482878", "#3e4a89", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6dcd59", "#b4de2c", "#fde725"];

const $ = (id) => document.getElementById(id);
const ours = (row) => row < run.chosen;
const other = (row) => row - run.chosen; // where the columns of what was not chosen have it
const rounded = (value, digits) => Number(value.toPrecision(digits)).toLocaleString("en", { maximumFractionDigits: 10 });
const number = (value) => rounded(value, 4);
const whole = (value) => value.toLocaleString("en");
const named = (row) => (all.source[row] === null ? "" : run.sources[all.source[row]]);
const oneLine = (row) => (all.text[row] === null ? `(no text) ${all.id[row]}` : all.text[row].replace(/\s+/g, " "));
const clusterOf = new Map(run.clusters.map((cluster) => [cluster.cluster, cluster]));
const medoids = new Set(run.clusters.map((cluster) => cluster.medoid).filter((row) => row !== null));

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

// --- what is looked at ------------------------------------------------------------------------------------------------

const state = { words: [], filter: null, selected: null, tab: "chosen", sort: {}, page: 0, colour: "chosen" };
let hits = new Uint8Array(count).fill(1);
let haystack = null;

function search() {
  if (state.words.length && !haystack) {
    haystack = all.text.map((text, row) => `${all.id[row]}\n${named(row)}\n${text ?? ""}`.toLowerCase());
  }
  const { filter, words } = state;
  for (let row = 0; row < count; row++) {
    hits[row] =
      (!filter || (filter.column === "chosen" ? ours(row) === filter.value : all[filter.column][row] === filter.value)) &&
      words.every((word) => haystack[row].includes(word));
  }
  let [chosen, others] = [0, 0];
  for (let row = 0; row < count; row++) if (hits[row]) ours(row) ? chosen++ : others++;
  $("found").textContent = narrowed() ? `${whole(chosen)} chosen, ${whole(others)} not chosen` : "";
  $("filters").replaceChildren(
    ...(filter ? [element("button", { type: "button", class: "chip", title: "Show all again", onclick: () => setFilter(null) }, `${filter.label} ✕`)] : []),
  );
  state.page = 0;
  drawMap();
  drawTable();
}

const narrowed = () => state.words.length > 0 || state.filter !== null;

function setFilter(filter) {
  const same = filter && state.filter && filter.column === state.filter.column && filter.value === state.filter.value;
  state.filter = same ? null : filter;
  search();
}

function select(row, { scroll = false } = {}) {
  state.selected = row;
  showExample();
  drawMap();
  for (const line of document.querySelectorAll("tbody tr")) line.classList.toggle("chosen", Number(line.dataset.row) === row);
  if (scroll && window.innerWidth < 1024) $("example").scrollIntoView({ behavior: "smooth", block: "nearest" });
}

// --- colours ----------------------------------------------------------------------------------------------------------

const range = (values) => {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) if (value !== null) [low, high] = [Math.min(low, value), Math.max(high, value)];
  return [low, high];
};
const clusterColour = (cluster, dark) => `hsl(${Math.round((cluster * 137.508) % 360)}, 62%, ${dark ? 62 : 45}%)`;
const scores = range(all.score);
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const isDark = () => matchMedia("(prefers-color-scheme: dark)").matches;
const rounds = run.per_round.length;

const COLOURS = {
  chosen: { label: "chosen or not", there: () => true },
  cluster: { label: "cluster", there: () => all.cluster.some((cluster) => cluster !== null) },
  source: { label: "source", there: () => run.sources.length > 1 },
  score: { label: "score", there: () => scores[0] < scores[1] },
  round: { label: "round", there: () => rounds > 1 },
};

function painter() {
  const [our, their, dark] = [style("--ours"), style("--theirs"), isDark()];
  const step = (share) => RAMP[Math.min(RAMP.length - 1, Math.max(0, Math.floor(share * RAMP.length)))];
  switch (state.colour) {
    case "cluster":
      return (row) => (all.cluster[row] === null ? their : clusterColour(all.cluster[row], dark));
    case "source":
      return (row) => (all.source[row] !== null && all.source[row] < PALETTE.length ? PALETTE[all.source[row]] : their);
    case "score":
      return (row) => (all.score[row] === null ? their : step((all.score[row] - scores[0]) / (scores[1] - scores[0])));
    case "round":
      return (row) => (ours(row) ? step((all.round[row] - 1) / Math.max(rounds - 1, 1)) : their);
    default:
      return (row) => (ours(row) ? our : their);
  }
}

function drawLegend() {
  const item = (colour, text, filter) => {
    const dot = element("span", { class: "dot", style: `background:${colour}` });
    if (!filter) return element("li", {}, element("span", { class: "static" }, dot, text));
    return element("li", {}, element("button", { type: "button", title: "Show these alone", onclick: () => setFilter(filter) }, dot, text));
  };
  const ramp = (low, high) =>
    element("li", {}, element("span", { class: "static" }, low, element("span", { class: "ramp", style: `background:linear-gradient(90deg, ${RAMP.join(",")})` }), high));
  const items = [];
  if (state.colour === "cluster") {
    const shown = run.clusters.slice(0, 24);
    for (const { cluster } of shown) items.push(item(clusterColour(cluster, isDark()), `cluster ${cluster}`, { column: "cluster", value: cluster, label: `cluster ${cluster}` }));
    if (run.clusters.length > shown.length) items.push(element("li", {}, element("span", { class: "static" }, `and ${whole(run.clusters.length - shown.length)} more`)));
  } else if (state.colour === "source") {
    run.sources.slice(0, PALETTE.length).forEach((name, value) => items.push(item(PALETTE[value], name, { column: "source", value, label: name })));
    if (run.sources.length > PALETTE.length) items.push(item(style("--theirs"), `${whole(run.sources.length - PALETTE.length)} others`));
  } else if (state.colour === "score") items.push(ramp(number(scores[0]), number(scores[1])));
  else if (state.colour === "round") items.push(ramp("round 1", `round ${rounds}`), item(style("--theirs"), "not chosen"));
  else {
    items.push(item(style("--ours"), "chosen", { column: "chosen", value: true, label: "chosen" }));
    if (count > run.chosen) items.push(item(style("--theirs"), "not chosen", { column: "chosen", value: false, label: "not chosen" }));
  }
  $("legend").replaceChildren(...items);
}

// --- the map ----------------------------------------------------------------------------------------------------------

const placed = [...all.id.keys()].filter((row) => all.x[row] !== null);
const WEBGL = (() => {
  const context = document.createElement("canvas").getContext("webgl");
  context?.getExtension("WEBGL_lose_context")?.loseContext();
  return context !== null;
})();
let traces = []; // of each trace of the map, the rows of its points
let drawn = false;

function trace(rows, marker, extra = {}) {
  return {
    type: WEBGL ? "scattergl" : "scatter",
    mode: "markers",
    x: rows.map((row) => all.x[row]),
    y: rows.map((row) => all.y[row]),
    marker,
    hoverinfo: "none",
    ...extra,
  };
}

function plain(extra) {
  return {
    margin: { l: 0, r: 0, t: 0, b: 0 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: style("--soft"), family: "system-ui, sans-serif", size: 12 },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: style("--soft"), activecolor: style("--link") },
    showlegend: false,
    ...extra,
  };
}

function drawMap() {
  if (!placed.length) return;
  const paint = painter();
  const withOthers = $("others").checked;
  const visible = placed.filter((row) => withOthers || ours(row));
  const faint = narrowed() ? visible.filter((row) => !hits[row]) : [];
  const theirs = visible.filter((row) => hits[row] && !ours(row));
  const mine = visible.filter((row) => hits[row] && ours(row));
  const marked = $("medoids").checked ? [...medoids].filter((row) => all.x[row] !== null) : [];
  const focus = state.selected !== null && all.x[state.selected] !== null ? [state.selected] : [];
  const near = focus.length ? neighbours(state.selected) : [];
  const shrink = Math.min(1, (4000 / Math.max(mine.length + theirs.length, 1)) ** 0.35); // many points would be one blot
  const plainColours = state.colour === "chosen";
  const colours = (rows, own) => (plainColours ? own : rows.map(paint));
  traces = [faint, theirs, mine, marked, near, focus];
  const ring = style("--text");
  const data = [
    trace(faint, { size: 3, color: style("--theirs"), opacity: 0.12 }, { hoverinfo: "skip" }),
    trace(theirs, { size: (narrowed() ? 6 : 4) * shrink, color: colours(theirs, style("--theirs")), opacity: narrowed() ? 0.9 : 0.5 }),
    trace(mine, { size: (narrowed() ? 9 : 7) * shrink, color: colours(mine, style("--ours")), opacity: 0.9 }),
    trace(marked, { size: 11, symbol: "diamond-open", color: ring, line: { width: 1.5 } }),
    trace(near, { size: 13, symbol: "circle-open", color: style("--link"), line: { width: 2 } }, { hoverinfo: "skip" }),
    trace(focus, { size: 19, symbol: "circle-open", color: ring, line: { width: 3 } }, { hoverinfo: "skip" }),
  ];
  const axis = { visible: false, range: [-1.06, 1.06] };
  const layout = plain({ xaxis: axis, yaxis: { ...axis }, dragmode: "pan", hovermode: "closest", hoverdistance: 12, uirevision: "one" });
  const config = {
    displaylogo: false, scrollZoom: true, responsive: true, displayModeBar: true, doubleClick: "reset",
    modeBarButtons: [["zoomIn2d", "zoomOut2d", "resetScale2d", "toImage"]],
  };
  const map = $("map");
  Plotly.react(map, data, layout, config);
  if (drawn) return;
  drawn = true;
  map.on("plotly_hover", (event) => showTip(rowOf(event), event.event));
  map.on("plotly_unhover", () => ($("tip").hidden = true));
  map.on("plotly_click", (event) => {
    const row = rowOf(event);
    if (row !== undefined) select(row, { scroll: true });
  });
  map.addEventListener("pointerleave", () => ($("tip").hidden = true));
}

const rowOf = (event) => traces[event.points[0].curveNumber]?.[event.points[0].pointNumber];

function showTip(row, at) {
  if (row === undefined) return;
  const tip = $("tip");
  const meta = [ours(row) ? "chosen" : "not chosen", named(row), all.cluster[row] === null ? "" : `cluster ${all.cluster[row]}`];
  tip.replaceChildren(
    element("div", { class: "meta" }, meta.filter(Boolean).join(" · ")),
    element("div", { class: "body" }, all.text[row] === null ? `(no text) ${all.id[row]}` : all.text[row].slice(0, 600)),
  );
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const x = at.clientX + 16 + width > window.innerWidth ? at.clientX - width - 16 : at.clientX + 16;
  const y = at.clientY + 16 + height > window.innerHeight ? at.clientY - height - 16 : at.clientY + 16;
  tip.style.left = `${Math.max(4, x)}px`;
  tip.style.top = `${Math.max(4, y)}px`;
}

function neighbours(row) {
  // The nearest on the map of the other kind: of a chosen example those that were not chosen, and the other way round.
  const found = [];
  for (const each of placed) {
    if (ours(each) === ours(row)) continue;
    const gap = (all.x[each] - all.x[row]) ** 2 + (all.y[each] - all.y[row]) ** 2;
    if (found.length < NEAR || gap < found[found.length - 1].gap) {
      found.push({ row: each, gap });
      found.sort((a, b) => a.gap - b.gap);
      found.length = Math.min(found.length, NEAR);
    }
  }
  return found.map((each) => each.row);
}

// --- one example ------------------------------------------------------------------------------------------------------

function showExample() {
  const row = state.selected;
  const card = $("example");
  if (row === null) {
    card.replaceChildren(element("h2", {}, "An example"), element("p", { class: "hint" }, "Choose a point of the map or a row of the tables: here is why it was chosen, what it says, and what lies beside it."));
    return;
  }
  const parts = [
    element("div", { class: "head" },
      element("span", { class: ours(row) ? "tag ours" : "tag" }, ours(row) ? "chosen" : "not chosen"),
      element("h2", { class: "id" }, all.id[row]),
      named(row) ? element("span", { class: "tag" }, named(row)) : ""),
    element("dl", { class: "why" }, ...why(row).flatMap(([label, ...value]) => [element("dt", {}, label), element("dd", {}, ...value)])),
    element("div", { class: "text", tabindex: "0" }, all.text[row] ?? "Its text is not in the run's folder. dsel show RUN --pool FILE shows it."),
  ];
  if (ours(row) && all.answer[row] !== null) {
    parts.push(element("h3", {}, "What the model in training answered"), element("div", { class: "text", tabindex: "0" }, all.answer[row] || "(nothing)"));
  }
  const near = all.x[row] === null ? [] : neighbours(row);
  if (near.length) {
    const button = (each) => element("button", { type: "button", class: ours(each) ? "ours" : "", onclick: () => select(each) }, text(each));
    parts.push(element("h3", {}, ours(row) ? "Nearest on the map that were not chosen" : "Nearest on the map that were chosen"));
    parts.push(element("ul", { class: "near" }, ...near.map((each) => element("li", {}, button(each)))));
  }
  card.replaceChildren(...parts);
  card.scrollTop = 0;
}

function why(row) {
  const lines = [];
  if (ours(row)) {
    const size = run.per_round[all.round[row] - 1];
    const times = all.times[row] > 1 ? `, and ${all.times[row] - 1} times more` : "";
    lines.push(["Round", `${all.round[row]} of ${whole(Math.max(rounds, 1))}, number ${whole(all.order[row])}${size ? ` of ${whole(size)}` : ""}${times}`]);
  }
  const cluster = all.cluster[row];
  if (cluster !== null) {
    const facts = clusterOf.get(cluster);
    const label = `cluster ${cluster}`;
    const link = element("button", { type: "button", class: "link", onclick: () => setFilter({ column: "cluster", value: cluster, label }) }, String(cluster));
    const of = facts ? `: ${whole(facts.chosen)} chosen${facts.size === null ? "" : ` of its ${whole(facts.size)}`}` : "";
    lines.push(["Cluster", link, of, medoids.has(row) ? ", of which it is the medoid" : ""]);
  }
  if (ours(row) && all.weight[row] !== null) {
    const even = run.even ? `, ${rounded(all.weight[row] / run.even, 3)} × an even share` : "";
    lines.push(["Weight", `${number(all.weight[row])}${even}`]);
  }
  if (all.score[row] !== null) lines.push(["Score", number(all.score[row])]);
  if (all.rank[row] !== null) lines.push(["Rank", `${whole(all.rank[row])}${run.pool ? ` of ${whole(run.pool)} by score` : " by score"}`]);
  if (ours(row) && all.difficulty[row] !== null) lines.push(["IFD rank", `${whole(all.difficulty[row])} in its round`]);
  if (ours(row) && all.feedback[row] !== null) lines.push(["Feedback", number(all.feedback[row])]);
  return lines;
}

// --- tables -----------------------------------------------------------------------------------------------------------

const text = (row) => element("div", { class: all.text[row] === null ? "clamp none" : "clamp" }, oneLine(row).slice(0, 400));
const known = (value, show) => (value === null || value === undefined ? element("span", { class: "none" }, "–") : show(value));
const column = (name, value, show = number, rest = {}) => ({ name, value, show: (row) => known(value(row), (found) => show(found, row)), ...rest });
const shared = {
  words: { name: "Example", kind: "words", value: (row) => oneLine(row).slice(0, 60).toLowerCase(), show: text },
  source: column("Source", (row) => named(row) || null, (name) => element("div", { class: "short", title: name }, name), { kind: "source" }),
  cluster: column("Cluster", (row) => all.cluster[row], String),
  score: column("Score", (row) => all.score[row], number, { down: true }),
  rank: column("Rank", (row) => all.rank[row], whole),
};
const TABS = {
  chosen: {
    label: `Chosen (${whole(run.chosen)})`,
    rows: () => rowsFrom(0, run.chosen),
    columns: [
      shared.words, shared.source, column("Round", (row) => all.round[row], String), column("No.", (row) => all.order[row], whole), shared.cluster,
      column("Weight", (row) => all.weight[row], (value) => rounded(value, 3), { down: true }), shared.score, shared.rank,
      column("IFD rank", (row) => all.difficulty[row], whole), column("Feedback", (row) => all.feedback[row], (value) => rounded(value, 3), { down: true }),
    ],
  },
  others: {
    label: `Not chosen (${whole(count - run.chosen)})`,
    rows: () => rowsFrom(run.chosen, count),
    sort: { column: "Distance", up: true },
    columns: [
      shared.words, shared.source, shared.cluster, shared.score, shared.rank,
      column("Distance", (row) => all.gap[other(row)], (value) => rounded(value, 2)),
      { name: "Nearest chosen", kind: "words", value: () => null, plain: true, there: (row) => all.near[other(row)] !== null, show: (row) => known(all.near[other(row)], text) },
    ],
  },
  clusters: {
    label: `Clusters (${whole(run.clusters.length)})`,
    rows: () => run.clusters.filter(clusterHit),
    columns: [
      column("Cluster", (each) => each.cluster, String), column("Size", (each) => each.size, whole, { down: true }),
      column("Chosen", (each) => each.chosen, whole, { down: true }),
      column("Share", (each) => (each.size ? each.chosen / each.size : null), (share) => `${(100 * share).toFixed(1)} %`, { down: true }),
      column("Quality", (each) => each.quality, (value) => rounded(value, 3), { down: true }),
      column("Weight, by round", (each) => each.weights[each.weights.length - 1], (value, each) => sparkline(each, value), { down: true }),
      column("Mostly", (each) => each.source || null, (name) => element("div", { class: "short", title: name }, name), { kind: "source" }),
      { name: "Medoid", kind: "words", value: () => null, plain: true, there: (each) => each.medoid !== null, show: (each) => known(each.medoid, text) },
    ],
  },
};
for (const tab of Object.values(TABS)) {
  const rows = tab === TABS.clusters ? run.clusters : [...all.id.keys()].slice(...(tab === TABS.chosen ? [0, run.chosen] : [run.chosen]));
  tab.columns = tab.columns.filter((each) => rows.some((row) => (each.there ? each.there(row) : each.value(row) !== null && each.value(row) !== undefined)));
}

function rowsFrom(start, end) {
  const rows = [];
  for (let row = start; row < end; row++) if (hits[row]) rows.push(row);
  return rows;
}

function clusterHit(cluster) {
  const { filter, words } = state;
  if (filter && filter.column === "cluster" && filter.value !== cluster.cluster) return false;
  return !words.length || words.every((word) => `cluster ${cluster.cluster}\n${cluster.source.toLowerCase()}\n${cluster.medoid === null ? "" : haystack[cluster.medoid]}`.includes(word));
}

const heaviest = Math.max(0, ...run.clusters.flatMap((cluster) => cluster.weights.map((weight) => weight ?? 0)));

function sparkline(cluster, last) {
  const { weights } = cluster;
  const [width, height] = [72, 18];
  const line = weights.map((weight, i) => `${i ? "L" : "M"}${(i / Math.max(weights.length - 1, 1)) * width} ${height - 1 - ((weight ?? 0) / (heaviest || 1)) * (height - 2)}`);
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  for (const [name, value] of [["width", width], ["height", height], ["aria-hidden", "true"]]) svg.setAttribute(name, value);
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", line.join(""));
  svg.append(path);
  return element("span", {}, svg, rounded(last, 3));
}

function drawTabs() {
  const names = Object.keys(TABS).filter((name) => name === "chosen" || TABS[name].rows().length);
  const go = (name) => {
    state.tab = name;
    state.page = 0;
    drawTabs();
    drawTable();
    drawChart();
    document.querySelector("#tabs [aria-selected=true]").focus();
  };
  $("tabs").replaceChildren(
    ...names.map((name, i) =>
      element("button", {
        type: "button", role: "tab", id: `tab-${name}`, "aria-controls": "panel", "aria-selected": String(name === state.tab), tabindex: name === state.tab ? "0" : "-1",
        onclick: () => go(name),
        onkeydown: (event) => {
          const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
          if (step) go(names[(i + step + names.length) % names.length]);
        },
      }, TABS[name].label)),
  );
  $("panel").setAttribute("aria-labelledby", `tab-${state.tab}`);
}

function sorted(tab) {
  const rows = tab.rows();
  const order = state.sort[state.tab] ?? tab.sort;
  const by = order && tab.columns.find((each) => each.name === order.column);
  if (!by) return rows;
  const sign = order.up ? 1 : -1;
  const keyed = rows.map((row) => [by.value(row), row]);
  keyed.sort(([a], [b]) => {
    if (a === null || a === undefined || b === null || b === undefined) return (a === null || a === undefined) - (b === null || b === undefined);
    return sign * (typeof a === "number" ? a - b : a < b ? -1 : a > b ? 1 : 0);
  });
  return keyed.map(([, row]) => row);
}

function drawTable() {
  const tab = TABS[state.tab];
  const rows = sorted(tab);
  const start = state.page * PAGE;
  const order = state.sort[state.tab] ?? tab.sort;
  const heads = tab.columns.map((each) => {
    const now = order && order.column === each.name;
    const side = each.kind ? "left" : "";
    if (each.plain) return element("th", { scope: "col", class: side }, element("button", { type: "button", disabled: true }, each.name));
    const turn = () => {
      state.sort[state.tab] = { column: each.name, up: now ? !order.up : !each.down };
      state.page = 0;
      drawTable();
    };
    return element("th", { scope: "col", class: side, "aria-sort": now ? (order.up ? "ascending" : "descending") : null }, element("button", { type: "button", onclick: turn }, each.name));
  });
  document.querySelector("thead").replaceChildren(element("tr", {}, ...heads));
  const lines = rows.slice(start, start + PAGE).map((row) => {
    const cluster = typeof row === "object";
    const open = () => {
      if (!cluster) return select(row, { scroll: true });
      setFilter({ column: "cluster", value: row.cluster, label: `cluster ${row.cluster}` });
      if (row.medoid !== null) select(row.medoid);
    };
    const onkeydown = (event) => {
      if (event.key === "Enter") open();
    };
    const chosen = cluster ? state.filter?.column === "cluster" && state.filter.value === row.cluster : row === state.selected;
    const cells = tab.columns.map((each) => element("td", { class: each.kind ?? "" }, each.show(row)));
    return element("tr", { tabindex: "0", class: chosen ? "chosen" : "", "data-row": cluster ? null : row, onclick: open, onkeydown }, ...cells);
  });
  const nothing = element("tr", {}, element("td", { class: "words none", colspan: tab.columns.length }, "Nothing here has all of these words."));
  document.querySelector("tbody").replaceChildren(...(lines.length ? lines : [nothing]));
  $("where").textContent = rows.length ? `${whole(start + 1)}–${whole(Math.min(start + PAGE, rows.length))} of ${whole(rows.length)}` : "";
  $("before").disabled = state.page === 0;
  $("after").disabled = start + PAGE >= rows.length;
  $("pages").hidden = rows.length <= PAGE;
}

function drawChart() {
  // Weights over rounds: those clusters in colour whose weights changed most, and the one that is looked at.
  const chart = $("chart");
  const weighed = run.clusters.filter((cluster) => cluster.weights.length > 1);
  chart.hidden = state.tab !== "clusters" || !weighed.length;
  if (chart.hidden) return;
  const spread = (cluster) => {
    const [low, high] = range(cluster.weights);
    return high - low;
  };
  const changed = [...weighed].sort((a, b) => spread(b) - spread(a));
  const looked = state.filter?.column === "cluster" ? weighed.filter((cluster) => cluster.cluster === state.filter.value) : [];
  const grey = changed.slice(LINES, 200);
  const at = (cluster) => cluster.weights.map((_, i) => i + 1);
  const line = (cluster, color, width) => ({
    type: "scatter", mode: "lines+markers", x: at(cluster), y: cluster.weights, line: { color, width }, marker: { size: width + 3 },
    name: `cluster ${cluster.cluster}`, hovertemplate: `cluster ${Number(cluster.cluster)}<br>round %{x}: %{y:.4g}<extra></extra>`,
  });
  const joined = { type: "scatter", mode: "lines", x: [], y: [], line: { color: style("--theirs"), width: 1 }, opacity: 0.35, hoverinfo: "skip", showlegend: false };
  for (const cluster of grey) {
    joined.x.push(...at(cluster), null);
    joined.y.push(...cluster.weights, null);
  }
  const data = [joined, ...changed.slice(0, LINES).map((cluster) => line(cluster, clusterColour(cluster.cluster, isDark()), 2)), ...looked.map((cluster) => line(cluster, style("--text"), 4))];
  const axis = { gridcolor: style("--line"), zeroline: false, fixedrange: true };
  const layout = plain({
    margin: { l: 56, r: 12, t: 34, b: 40 }, hovermode: "closest", showlegend: window.innerWidth > 700,
    title: { text: "Weights of the clusters over rounds; in colour those that changed most", font: { size: 13 }, x: 0.01, xanchor: "left" },
    xaxis: { ...axis, title: { text: "round" }, dtick: 1 }, yaxis: { ...axis, title: { text: "weight" }, rangemode: "tozero" },
  });
  if (window.innerWidth <= 700) layout.title.text = "Weights over rounds, by cluster";
  Plotly.react(chart, data, layout, { displayModeBar: false, responsive: true });
}

// --- start ------------------------------------------------------------------------------------------------------------

$("colour").replaceChildren(...Object.entries(COLOURS).filter(([, each]) => each.there()).map(([name, each]) => element("option", { value: name }, each.label)));
$("colour").addEventListener("change", () => {
  state.colour = $("colour").value;
  drawLegend();
  drawMap();
});
$("others").parentElement.hidden = count === run.chosen;
$("medoids-label").hidden = ![...medoids].some((row) => all.x[row] !== null);
for (const box of ["others", "medoids"]) $(box).addEventListener("change", drawMap);
let waiting = 0;
$("query").addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(() => {
    state.words = $("query").value.toLowerCase().split(/\s+/).filter(Boolean);
    search();
  }, 120);
});
const turnTo = (page) => {
  state.page = page;
  drawTable();
  $("tabs").scrollIntoView({ block: "nearest" });
};
$("before").addEventListener("click", () => turnTo(state.page - 1));
$("after").addEventListener("click", () => turnTo(state.page + 1));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  drawLegend();
  drawMap();
  drawChart();
});
window.addEventListener("scroll", () => ($("tip").hidden = true), { passive: true });
if (!placed.length) $("map-card").hidden = true;
drawLegend();
drawTabs();
showExample();
search();
