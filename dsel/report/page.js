"use strict";
// A click on a header sorts its table by that column: numbers from the largest down, then up; names from the first on.
// What has no number stays at the end. Rows that are equal keep their order.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  const names = (a, b) => a.cells[0].textContent.localeCompare(b.cells[0].textContent, "en", { numeric: true });
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const first = column === 0 ? "ascending" : "descending";
      const other = column === 0 ? "descending" : "ascending";
      const order = head.getAttribute("aria-sort") === first ? other : first;
      for (const each of heads) each.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const value = (row) => row.cells[column].dataset.value;
      const rows = [...body.rows].sort((a, b) => {
        if (column === 0) return sign * names(a, b);
        if (value(a) === "" || value(b) === "") return (value(a) === "") - (value(b) === "");
        return sign * (value(a) - value(b));
      });
      body.append(...rows);
    });
  });
}
