// Sorts and filters the tables of classes, and redraws the curves for the class that is chosen. All of the page can be
// read without it. Data, for each part of the report: {classes, chosen, runs: [{threshold, precision, recall, used,
// best}]}; each list has an entry for each class and one for all together. A run may have another curve of precision, on
// the recalls of data.recalls, for each of the choices: run.choices.
"use strict";

function sortBy(table, rows, column, descending) {
  const key = (row) => row.cells[column].dataset.v;
  rows.sort((one, other) => {
    const [a, b] = [key(one), key(other)];
    if (a === "" || b === "") return (a === "") - (b === "");  // absent values last, whatever the direction
    const order = column ? a - b : a.localeCompare(b);
    return descending ? -order : order;
  });
  table.tBodies[0].append(...rows);
  [...table.tHead.rows[0].cells].forEach((cell, place) => {
    if (place === column) cell.setAttribute("aria-sort", descending ? "descending" : "ascending");
    else cell.removeAttribute("aria-sort");
  });
}

function filterBy(rows, text, count) {
  const wanted = text.trim().toLowerCase();
  for (const row of rows) row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted);
  count.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} classes`;
}

function draw(figure, name, points) {
  const line = figure.querySelector(`#${CSS.escape(`${figure.dataset.name}-${name}`)} path`);
  const [left, bottom, right, top] = figure.dataset.frame.split(" ").map(Number);
  const onPaper = ([x, y]) => `${(left + x * (right - left)).toFixed(2)} ${(bottom + y * (top - bottom)).toFixed(2)}`;
  line.setAttribute("clip-path", "none");
  // A single point becomes a dot.
  line.setAttribute("d", points.length ? `M${points.map(onPaper).join("L")}${points.length === 1 ? "h0" : ""}` : "");
}

const upright = (x) => (x === null || x < 0 || x > 1 ? [] : [[x, 0], [x, 1]]);
const pairs = (one, other) => one.map((x, place) => [x, other[place]]);
const fromTheLeft = (points) => (points.length ? [[0, points[0][1]], ...points] : points);

function interact(sections, data) {
  const find = (selector) => sections.flatMap((section) => [...section.querySelectorAll(selector)]);
  const [chooser] = find("[data-choose]");
  const [choice] = find("[data-choice]");

  function precisionRecall(run, place) {
    if (!choice) return fromTheLeft(pairs(run.recall[place], run.precision[place]));
    const precision = run.choices[Number(choice.value)][place];
    return precision.length ? pairs(data.recalls, precision) : [];
  }

  function choose(place) {
    for (const figure of find("figure[data-chart]")) {
      figure.querySelector("[data-chosen]").textContent = data.classes[place];
      if (figure.dataset.chart === "precision-recall") {
        data.runs.forEach((run, r) => draw(figure, `curve-${r}`, precisionRecall(run, place)));
        continue;
      }
      const run = data.runs[Number(figure.dataset.run)];
      const [thresholds, precision, recall] = [run.threshold, run.precision, run.recall].map((lists) => lists[place]);
      const f1 = precision.map((p, k) => (p + recall[k] ? (2 * p * recall[k]) / (p + recall[k]) : 0));
      draw(figure, "precision", pairs(thresholds, precision));
      draw(figure, "recall", pairs(thresholds, recall));
      draw(figure, "f1", pairs(thresholds, f1));
      draw(figure, "used", upright(run.used[place]));
      draw(figure, "best", upright(run.best[place]));
    }
    chooser.value = String(place);
    for (const row of find("[data-chooses] tbody tr"))
      row.setAttribute("aria-selected", String(Number(row.dataset.place) === place));
  }

  for (const table of find("table[data-classes]")) {
    const controls = table.parentElement.previousElementSibling;
    const rows = [...table.tBodies[0].rows];
    const [filter, count] = ["[data-filter]", "[data-count]"].map((name) => controls.querySelector(name));
    table.tHead.addEventListener("click", (event) => {
      const button = event.target.closest("[data-sort]");
      if (!button) return;
      const column = Number(button.dataset.sort);
      const before = button.closest("th").getAttribute("aria-sort");
      sortBy(table, rows, column, before ? before === "ascending" : column > 0);
    });
    filter.addEventListener("input", () => filterBy(rows, filter.value, count));
    controls.addEventListener("submit", (event) => event.preventDefault());
    controls.hidden = false;
    filterBy(rows, "", count);
    if ("chooses" in table.dataset)
      table.tBodies[0].addEventListener("click", (event) => choose(Number(event.target.closest("tr").dataset.place)));
  }
  data.classes.forEach((name, place) => chooser.append(new Option(name, String(place))));
  for (const select of [chooser, choice]) select?.addEventListener("change", () => choose(Number(chooser.value)));
  choose(data.chosen);
}

for (const [part, data] of Object.entries(JSON.parse(document.getElementById("charts").textContent)))
  interact([...document.querySelectorAll(`section[data-part="${part}"]`)], data);
