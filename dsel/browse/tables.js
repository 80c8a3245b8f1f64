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
      column("Cluster", (each) => each.cluster, String),
      { name: "Medoid", kind: "words", value: () => null, plain: true, there: (each) => each.medoid !== null, show: (each) => known(each.medoid, text) },
      column("Mostly", (each) => each.source || null, (name) => element("div", { class: "short", title: name }, name), { kind: "source" }),
      column("Size", (each) => each.size, whole, { down: true }),
      column("Chosen", (each) => each.chosen, whole, { down: true }),
      column("Share", (each) => (each.size ? each.chosen / each.size : null), (share) => `${(100 * share).toFixed(1)} %`, { down: true }),
      column("Quality", (each) => each.quality, (value) => rounded(value, 3), { down: true }),
      column("Weight, by round", (each) => each.weights[each.weights.length - 1], (value, each) => sparkline(each, value), { down: true }),
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
    const tab = document.querySelector("#tabs [aria-selected=true]");
    tab.focus();
    tab.scrollIntoView({ block: "nearest", inline: "nearest" });
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
