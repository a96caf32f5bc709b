"use strict";
document.querySelectorAll(".cases th").forEach((cell, column) => {
  cell.querySelector("button")?.addEventListener("click", () => {
    const down = cell.getAttribute("aria-sort") === "ascending", body = document.querySelector(".cases tbody");
    document.querySelectorAll(".cases th").forEach((other) => other.removeAttribute("aria-sort"));
    cell.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = (row) => row.cells[column].dataset.value;
    const rows = Array.from(body.rows).sort((a, b) => {
      const [x, y] = [value(a), value(b)], both = Number(x) - Number(y);
      return (Number.isNaN(both) || x === "" || y === "" ? x.localeCompare(y) : both) * (down ? -1 : 1);
    });
    body.append(...rows);
  });
});
