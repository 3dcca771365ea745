"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const PAGE = 20;

// ---- light and dark: the system's choice, until the button says otherwise
const dark = matchMedia("(prefers-color-scheme: dark)");
let chosen = null;
function theme() { return chosen ?? (dark.matches ? "dark" : "light"); }
function paint() {
  document.documentElement.dataset.theme = theme();
  drawAll();
}
document.getElementById("theme").addEventListener("click", () => {
  chosen = theme() === "dark" ? "light" : "dark";
  paint();
});
dark.addEventListener("change", paint);

// ---- plots: drawn when they come near the screen, drawn again when the theme changes
const near = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) draw(entry.target);
}, { rootMargin: "600px" });
function config() {
  const style = getComputedStyle(document.documentElement);
  const text = style.getPropertyValue("--text").trim(), soft = style.getPropertyValue("--soft").trim(), line = style.getPropertyValue("--line").trim();
  const words = { labelColor: soft, titleColor: text, labelFontSize: 11, titleFontSize: 12 };
  return { background: "transparent", font: "system-ui, sans-serif", view: { stroke: null },
           axis: { ...words, gridColor: line, domainColor: line, tickColor: line }, legend: words };
}
async function draw(node) {
  if (node.dataset.drawn === theme()) return;
  node.dataset.drawn = theme();
  const options = { actions: false, renderer: "svg", config: config(), tooltip: { theme: theme() } };
  await vegaEmbed(node, data.plots[node.dataset.plot], options);
  node.dataset.ready = theme();
}
function drawAll() {
  for (const node of document.querySelectorAll(".plot")) {
    near.unobserve(node);
    near.observe(node);
  }
  rest();
}
const idle = window.requestIdleCallback ?? ((work) => setTimeout(work, 50));
function rest() {
  const left = [...document.querySelectorAll(".plot")].find((node) => node.dataset.drawn !== theme());
  if (left) idle(() => draw(left).then(rest));
}
addEventListener("beforeprint", () => document.querySelectorAll(".plot").forEach(draw));

// ---- tables: all rows are in memory, one page of them in the document
const order = new Intl.Collator("en", { numeric: true }).compare;
const said = new Intl.NumberFormat("en", { maximumFractionDigits: 4 });
function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}
function table(place) {
  const { columns, rows } = data.tables[place.dataset.table];
  const words = rows.map((row) => row.join("\u0000").toLowerCase());
  const state = { by: -1, down: false, page: 0, filter: "" };
  const box = make("input", { type: "search", "aria-label": `Filter ${place.dataset.caption}`, placeholder: "filter" });
  const count = make("span", { class: "count", "aria-live": "polite" });
  const back = make("button", { type: "button" }, "previous"), next = make("button", { type: "button" }, "next");
  const heads = columns.map((column, index) => {
    const button = make("button", { type: "button" }, column.label);
    button.addEventListener("click", () => {
      state.down = state.by === index ? !state.down : column.number;
      state.by = index;
      state.page = 0;
      show();
    });
    return make("th", { scope: "col", class: column.number ? "number" : "" }, button);
  });
  const body = make("tbody");
  const whole = make("table", {}, make("caption", {}, place.dataset.caption), make("thead", {}, make("tr", {}, ...heads)), body);
  place.append(make("div", { class: "tools" }, box, count, back, next), make("div", { class: "wide", tabindex: 0, role: "region", "aria-label": place.dataset.caption }, whole));

  function chosenRows() {
    const parts = state.filter.toLowerCase().split(/\s+/).filter(Boolean);
    let found = rows.map((_, i) => i);
    if (parts.length) found = found.filter((i) => parts.every((part) => words[i].includes(part)));
    if (state.by >= 0) {
      const sign = state.down ? -1 : 1, numeric = columns[state.by].number;
      found.sort((i, j) => {
        const a = rows[i][state.by], b = rows[j][state.by];
        if (a === null || b === null) return (a === null) - (b === null) || i - j;
        return sign * (numeric ? a - b : order(String(a), String(b))) || i - j;
      });
    }
    return found;
  }
  function show() {
    const found = chosenRows(), first = state.page * PAGE, some = found.slice(first, first + PAGE);
    body.replaceChildren(...some.map((i) => make("tr", { "data-name": String(rows[i][1] ?? "") }, ...rows[i].map((value, c) =>
      make("td", columns[c].number ? { class: "number" } : {}, value === null ? "" : columns[c].number ? said.format(value) : String(value))))));
    heads.forEach((head, i) => head.setAttribute("aria-sort", i !== state.by ? "none" : state.down ? "descending" : "ascending"));
    const many = found.length > PAGE;
    count.textContent = many ? `${said.format(first + 1)} to ${said.format(first + some.length)} of ${said.format(found.length)} rows` : `${said.format(found.length)} rows`;
    back.hidden = next.hidden = !many;
    back.disabled = state.page === 0;
    next.disabled = first + PAGE >= found.length;
  }
  let waiting = 0;
  box.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => { state.filter = box.value; state.page = 0; show(); }, 80);
  });
  back.addEventListener("click", () => { state.page -= 1; show(); });
  next.addEventListener("click", () => { state.page += 1; show(); });
  show();
  return { filter(text) { box.value = text; state.filter = text; state.page = 0; show(); } };
}
const tables = {};
for (const place of document.querySelectorAll("[data-table]")) tables[place.dataset.table] = table(place);

// ---- a box of the graph filters the tables of steps and drops
for (const link of document.querySelectorAll(".dag a")) {
  link.addEventListener("click", () => {
    tables.steps?.filter(link.dataset.step);
    tables.drops?.filter(link.dataset.step);
  });
}
paint();
