
"use strict";
// Everything here is a comfort: the page says the same without it.

// A click on a column's title sorts the table by it; another click turns the order round.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const key = (row, column) => {
    const cell = row.cells[column];
    return "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent;
  };
  heads.forEach((head, column) => {
    if ("fixed" in head.dataset) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      const rows = [...table.tBodies[0].rows].map(row => [key(row, column), row]);
      rows.sort(([a], [b]) => (typeof a === "number" ? a - b : a.localeCompare(b, "en", {numeric: true})) * (down ? -1 : 1));
      table.tBodies[0].append(...rows.map(([, row]) => row));
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
    });
  });
}

// The cell of the confusion matrix under the pointer, or where the arrow keys are, in words.
for (const figure of document.querySelectorAll("[data-matrix]")) {
  const {left, top, cell, names, cells, most} = JSON.parse(document.getElementById("cells").textContent);
  const counts = new Map(cells.map(([row, column, images]) => [row * names.length + column, images]));
  const svg = figure.querySelector("svg"), output = figure.querySelector("output"), scroll = figure.querySelector(".scroll");
  const mark = document.createElementNS(svg.namespaceURI, "rect");
  mark.classList.add("at");
  let at = null;

  const name = (row, column) => {
    at = [row, column];
    const found = counts.get(row * names.length + column);
    const images = found ?? 0;
    const many = found === undefined && most ? `at most ${most} images` : `${images.toLocaleString("en")} ${images === 1 ? "image" : "images"}`;
    output.textContent = `true ${names[row]}, predicted ${names[column]}: ${many}`;
    figure.classList.add("asked");
    for (const [key, value] of Object.entries({x: left + column * cell, y: top + row * cell, width: cell, height: cell})) mark.setAttribute(key, value);
    svg.append(mark);
  };
  const point = event => {
    const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    const row = Math.floor((place.y - top) / cell), column = Math.floor((place.x - left) / cell);
    if (row >= 0 && column >= 0 && row < names.length && column < names.length) name(row, column);
  };
  svg.addEventListener("pointermove", point);
  svg.addEventListener("pointerdown", point);
  scroll.addEventListener("keydown", event => {
    const step = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]}[event.key];
    if (!step) return;
    event.preventDefault();
    const inside = place => Math.min(names.length - 1, Math.max(0, place));
    at ? name(inside(at[0] + step[0]), inside(at[1] + step[1])) : name(0, 0);
    mark.scrollIntoView({block: "nearest", inline: "nearest"});
  });
}

// Paper cannot be unfolded.
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details:not([open])")) {
    details.open = true;
    details.dataset.folded = "";
  }
});
addEventListener("afterprint", () => {
  for (const details of document.querySelectorAll("details[data-folded]")) {
    details.open = false;
    delete details.dataset.folded;
  }
});
