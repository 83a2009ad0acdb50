// Sorts and searches the tables of classes, redraws the curves for the selected class, filters the image cards
// by class and enlarges images. The whole page can be read without it. Data, for each part of the report: {classes,
// chosen, runs: [{threshold, precision, recall, used, best}], heights}; each list has an entry for each class and one for
// all classes together. In run.choices, a run may have further precision curves, at the recalls data.recalls. heights
// has the outlines of score distributions, two lists for each run.
"use strict";

const ROWS = 100;  // the number of rows that the page shows at first
document.documentElement.classList.add("interactive");

function sortBy(table, rows, column, descending) {
  const key = (row) => row.cells[column].dataset.v;
  const isText = table.tHead.rows[0].cells[column].classList.contains("text");
  rows.sort((one, other) => {
    const [a, b] = [key(one), key(other)];
    if (a === "" || b === "") return (a === "") - (b === "");  // absent values last, whatever the direction
    const order = isText ? a.localeCompare(b) : a - b;
    return descending ? -order : order;
  });
  table.tBodies[0].append(...rows);
  [...table.tHead.rows[0].cells].forEach((cell, place) => {
    if (place === column) cell.setAttribute("aria-sort", descending ? "descending" : "ascending");
    else cell.removeAttribute("aria-sort");
  });
}

// Shows the first ROWS rows whose class name contains the text.
function search(rows, text, count) {
  const query = text.trim().toLowerCase();
  const matches = rows.filter((row) => row.cells[0].textContent.toLowerCase().includes(query));
  for (const row of rows) row.hidden = true;
  for (const row of matches.slice(0, ROWS)) row.hidden = false;
  count.textContent = `${matches.length} of ${rows.length} classes` + (matches.length > ROWS ? `, ${ROWS} are shown` : "");
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
const outline = (heights) => [
  [0, 0],
  ...heights.flatMap((height, bin) => [[bin / heights.length, height], [(bin + 1) / heights.length, height]]),
  [1, 0],
];
const classesOf = (element) => element.dataset.classes.split(" ").filter((text) => text !== "").map(Number);

function interact(sections, data) {
  const find = (selector) => sections.flatMap((section) => [...section.querySelectorAll(selector)]);
  const [chooser] = find("[data-choose]");
  const [choice] = find("[data-choice]");
  const all = data.classes.length - 1;
  const cards = find(".card");

  function precisionRecall(run, place) {
    if (!choice) return fromTheLeft(pairs(run.recall[place], run.precision[place]));
    const precision = run.choices[Number(choice.value)][place];
    return precision.length ? pairs(data.recalls, precision) : [];
  }

  function drawClass(place, figures) {
    for (const figure of figures) {
      figure.querySelector("[data-chosen]").textContent = data.classes[place];
      if (figure.dataset.chart === "distribution") {
        data.heights[Number(figure.dataset.run)].forEach((kind, k) => draw(figure, `kind-${k}`, outline(kind[place])));
        continue;
      }
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
    if (chooser) chooser.value = String(place);
  }

  // Marks the rows, dots and cells of exactly these classes.
  function mark(classes) {
    const key = classes.join(" ");
    for (const element of find("tr[data-classes], svg [data-classes]"))
      element.setAttribute("aria-selected", String(classes.length > 0 && element.dataset.classes === key));
  }

  // Shows the image cards that have all of the classes.
  function filter(classes) {
    let shown = 0;
    for (const card of cards) {
      const there = classesOf(card);
      card.hidden = !classes.every((c) => there.includes(c));
      shown += !card.hidden;
    }
    for (const note of find(".none")) {
      const gallery = note.nextElementSibling;
      note.hidden = [...gallery.children].some((card) => !card.hidden);
    }
    const bar = document.querySelector(".bar");
    bar.hidden = classes.length === 0 || cards.length === 0;
    bar.querySelector("output").textContent =
      `${classes.map((c) => data.classes[c]).join(" and ")}: ${shown} of ${cards.length} images`;
    bar.querySelector("a").href = cards.length ? `#${cards[0].closest("section").id}` : "#";
    bar.querySelector("button").onclick = () => select([]);
  }

  function select(classes) {
    drawClass(classes.length ? classes[0] : all, find("figure[data-chart]"));
    mark(classes);
    filter(classes);
  }

  for (const table of find("table[data-classes-table]")) {
    const controls = table.closest("section").querySelector(".controls");
    const rows = [...table.tBodies[0].rows];
    const [field, count] = ["[data-filter]", "[data-count]"].map((name) => controls.querySelector(name));
    table.tHead.addEventListener("click", (event) => {
      const button = event.target.closest("[data-sort]");
      if (!button) return;
      const column = Number(button.dataset.sort);
      const before = button.closest("th").getAttribute("aria-sort");
      sortBy(table, rows, column, before ? before === "ascending" : column > 0);
      search(rows, field.value, count);
    });
    field.addEventListener("input", () => search(rows, field.value, count));
    controls.addEventListener("submit", (event) => event.preventDefault());
    controls.hidden = false;
    for (const note of table.closest("section").querySelectorAll(".limit")) note.hidden = true;
    search(rows, "", count);
  }
  for (const section of sections)
    section.addEventListener("click", (event) => {
      const target = event.target.closest("tbody tr[data-classes], svg [data-classes]");
      if (target) select(classesOf(target));
    });
  if (chooser) {
    data.classes.forEach((name, place) => chooser.append(new Option(name, String(place))));
    chooser.addEventListener("change", () => select(Number(chooser.value) === all ? [] : [Number(chooser.value)]));
    choice?.addEventListener("change", () => drawClass(Number(chooser.value), find("figure[data-chart]")));
    drawClass(data.chosen, find("figure[data-chart]:not([data-chart='distribution'])"));
    mark([data.chosen]);
  }
}

function enlarge(image) {
  const dialog = document.querySelector("dialog");
  const copy = image.cloneNode(true);
  const [width, height] = image.style.aspectRatio.split("/").map(Number);
  // As large as the window allows, but small images no larger than 760 pixels.
  const most = Math.max(1.5, 760 / Math.max(width, height));
  const zoom = Math.min((0.92 * innerWidth) / width, (0.8 * innerHeight) / height, most);
  copy.style.width = `${Math.round(zoom * width)}px`;
  copy.onclick = () => dialog.close();
  dialog.querySelector(".enlarged").replaceChildren(copy);
  dialog.showModal();
}

document.addEventListener("click", (event) => {
  const image = event.target.closest(".gallery .image[role=button]");
  if (image) enlarge(image);
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && event.target.matches(".gallery .image[role=button]")) enlarge(event.target);
});

// Shows a hint on tables that have columns outside of their box.
const watch = new ResizeObserver((entries) => entries.forEach(({ target }) => hint(target)));
function hint(scroll) {
  const rest = scroll.scrollWidth - scroll.clientWidth;
  scroll.parentElement.classList.toggle("overflows", rest > 1);
  scroll.parentElement.classList.toggle("at-end", scroll.scrollLeft >= rest - 1);
}
for (const scroll of document.querySelectorAll(".scroll")) {
  watch.observe(scroll);
  scroll.addEventListener("scroll", () => hint(scroll));
}

// Opens folded sections for printing.
const closed = [];
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details:not([open])")) closed.push(details), (details.open = true);
});
addEventListener("afterprint", () => {
  for (const details of closed.splice(0)) details.open = false;
});

for (const [part, data] of Object.entries(JSON.parse(document.getElementById("charts").textContent)))
  interact([...document.querySelectorAll(`section[data-part="${part}"]`)], data);
