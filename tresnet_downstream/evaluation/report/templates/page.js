// Sorts and filters the table of classes, and redraws the curves for the class that is chosen. All of the page can be
// read without it. Data: {classes, chosen, runs: [{threshold, precision, recall, used, best}]}; each list has an entry
// for each class and one for all together. A run may have another curve of precision, on the recalls of data.recalls,
// for each of the choices: run.choices.
"use strict";
const data = JSON.parse(document.getElementById("charts").textContent);
const table = document.querySelector("table[data-classes]");
const controls = document.querySelector(".controls");
const [filter, chooser, choice, count] =
  ["[data-filter]", "[data-choose]", "[data-choice]", "[data-count]"].map((name) => controls.querySelector(name));
const rows = [...table.tBodies[0].rows];
const places = new Map(data.classes.map((name, place) => [name, place]));

function sortBy(column, descending) {
  const key = (row) => row.cells[column].dataset.v;
  const numbers = column > 0;
  rows.sort((one, other) => {
    const [a, b] = [key(one), key(other)];
    if (a === "" || b === "") return (a === "") - (b === "");  // absent values last, whatever the direction
    const order = numbers ? a - b : a.localeCompare(b);
    return descending ? -order : order;
  });
  table.tBodies[0].append(...rows);
  [...table.tHead.rows[0].cells].forEach((cell, place) => {
    if (place === column) cell.setAttribute("aria-sort", descending ? "descending" : "ascending");
    else cell.removeAttribute("aria-sort");
  });
}

function filterBy(text) {
  const wanted = text.trim().toLowerCase();
  let shown = 0;
  for (const row of rows) {
    row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted);
    shown += !row.hidden;
  }
  count.textContent = `${shown} of ${rows.length} classes`;
}

function draw(svg, figure, name, points) {
  const line = svg.querySelector(`#${CSS.escape(`${figure.dataset.name}-${name}`)} path`);
  const [left, bottom, right, top] = figure.dataset.frame.split(" ").map(Number);
  line.setAttribute("clip-path", "none");
  line.setAttribute("d", points
    .map(([x, y], place) => `${place ? "L" : "M"}${(left + x * (right - left)).toFixed(2)} ${(bottom + y * (top - bottom)).toFixed(2)}`)
    .join("") + (points.length === 1 ? "h0" : ""));  // a dot
}

const upright = (x) => (x === null || x < 0 || x > 1 ? [] : [[x, 0], [x, 1]]);
const pairs = (one, other) => one.map((x, place) => [x, other[place]]);
const fromTheLeft = (points) => (points.length ? [[0, points[0][1]], ...points] : points);

function precisionRecall(run, place) {
  if (!choice) return fromTheLeft(pairs(run.recall[place], run.precision[place]));
  const precision = run.choices[Number(choice.value)][place];
  return precision.length ? pairs(data.recalls, precision) : [];
}

function choose(place) {
  for (const figure of document.querySelectorAll("figure[data-chart]")) {
    const svg = figure.querySelector("svg");
    figure.querySelector("[data-chosen]").textContent = data.classes[place];
    if (figure.dataset.chart === "precision-recall") {
      data.runs.forEach((run, r) => draw(svg, figure, `curve-${r}`, precisionRecall(run, place)));
      continue;
    }
    const run = data.runs[Number(figure.dataset.run)];
    const [thresholds, precision, recall] = [run.threshold, run.precision, run.recall].map((lists) => lists[place]);
    const f1 = precision.map((p, k) => (p + recall[k] ? (2 * p * recall[k]) / (p + recall[k]) : 0));
    draw(svg, figure, "precision", pairs(thresholds, precision));
    draw(svg, figure, "recall", pairs(thresholds, recall));
    draw(svg, figure, "f1", pairs(thresholds, f1));
    draw(svg, figure, "used", upright(run.used[place]));
    draw(svg, figure, "best", upright(run.best[place]));
  }
  chooser.value = String(place);
  for (const row of rows) row.setAttribute("aria-selected", String(places.get(row.cells[0].textContent) === place));
}

data.classes.forEach((name, place) => chooser.append(new Option(name, String(place))));
table.tHead.addEventListener("click", (event) => {
  const button = event.target.closest("[data-sort]");
  if (!button) return;
  const column = Number(button.dataset.sort);
  const before = button.closest("th").getAttribute("aria-sort");
  sortBy(column, before ? before === "ascending" : column > 0);
});
table.tBodies[0].addEventListener("click", (event) => {
  const row = event.target.closest("tr");
  if (row && places.has(row.cells[0].textContent)) choose(places.get(row.cells[0].textContent));
});
filter.addEventListener("input", () => filterBy(filter.value));
chooser.addEventListener("change", () => choose(Number(chooser.value)));
if (choice) choice.addEventListener("change", () => choose(Number(chooser.value)));
controls.addEventListener("submit", (event) => event.preventDefault());
controls.hidden = false;
filterBy("");
choose(data.chosen);
