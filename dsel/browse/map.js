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
