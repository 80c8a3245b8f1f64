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
