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
