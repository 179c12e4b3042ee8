// Column heads of sortable tables become buttons. Cells without a value ("–") stay last either way.
for (const table of document.querySelectorAll(".sortable table")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    const numeric = head.classList.contains("n");
    button.onclick = () => {
      const now = head.getAttribute("aria-sort");
      const up = now ? now === "descending" : !numeric;
      const value = (row) => {
        const text = row.cells[column].textContent;
        return numeric ? parseFloat(text.replaceAll(",", "")) : text;
      };
      const rows = [...table.tBodies[0].rows].map((row) => [value(row), row]);
      rows.sort(([a], [b]) => {
        if (numeric && (isNaN(a) || isNaN(b))) return isNaN(a) - isNaN(b);
        return (up ? 1 : -1) * (numeric ? a - b : a.localeCompare(b));
      });
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      table.tBodies[0].append(...rows.map(([, row]) => row));
    };
  });
}

// On a narrow screen a row of a wide table is a list of its cells, each under the name of its column.
for (const table of document.querySelectorAll(".scroll:not(.sortable) table")) {
  const heads = [...table.tHead.rows[0].cells].map((head) => head.textContent);
  if (heads.length < 4) continue;
  table.classList.add("wide");
  for (const row of table.tBodies[0].rows) [...row.cells].forEach((cell, n) => (cell.dataset.head = heads[n]));
}

// What goes wrong is kept where a test (or a bug report) finds it.
const errors = [];
const failed = (text) => {
  errors.push(String(text));
  document.documentElement.dataset.errors = errors.join("\n");
};
addEventListener("error", (event) => failed(event.message));
addEventListener("unhandledrejection", (event) => failed(event.reason));
addEventListener("securitypolicyviolation", (event) => failed(`${event.violatedDirective} ${event.blockedURI}`));

// A click on a mark that stands for a trial leads to the trial's row.
function show(id) {
  const row = id && document.getElementById(id);
  if (!row) return;
  document.querySelectorAll("tr.shown").forEach((other) => other.classList.remove("shown"));
  row.classList.add("shown");
  row.scrollIntoView({ block: "center", behavior: "smooth" });
}

// Legends keep to the width of their figure: fewer columns, and lines broken between words, or within a long name.
const SYMBOL = 46, AXIS = 60; // pixels of a legend's symbol with the room around it, and to the left of a legend
const pen = document.createElement("canvas").getContext("2d");

function fit(spec, width) {
  pen.font = `12px ${config.font}`;
  for (const layer of spec.layer)
    for (const channel of Object.values(layer.encoding)) {
      const names = channel.scale?.domain;
      if (!channel.legend?.columns || !names) continue;
      const letter = Math.max(...names.map((name) => pen.measureText(name).width / `${name}`.length));
      const letters = Math.floor((width - AXIS - SYMBOL) / letter);
      const broken = new RegExp(`\\S.{0,${letters - 1}}(?=\\s|$)|\\S.{0,${letters - 1}}(?<=[-_/.,])|\\S{1,${letters}}`, "g");
      const lines = Object.fromEntries(names.map((name) => [name, `${name}`.match(broken) ?? name]));
      const longest = Math.max(...Object.values(lines).flat().map((line) => pen.measureText(line).width));
      channel.legend.columns = Math.max(1, Math.floor((width - AXIS) / (SYMBOL + longest)));
      channel.legend.labelExpr = `(${JSON.stringify(lines)})[datum.label]`;
    }
}

const config = JSON.parse(document.getElementById("charts").textContent);
const charts = [...document.querySelectorAll(".chart")].map(async (chart) => {
  const spec = JSON.parse(chart.querySelector("script").textContent);
  fit(spec, chart.clientWidth);
  const options = { actions: false, ast: true, config, mode: "vega-lite", renderer: "svg" };
  try {
    const { view } = await vegaEmbed(chart.querySelector(".view"), spec, options);
    view.addEventListener("click", (event, item) => show(item?.datum?.row));
  } catch (error) {
    failed(error);
    chart.querySelector(".view").textContent = `This chart could not be drawn: ${error}`;
  }
});
Promise.all(charts).then(() => {
  document.documentElement.dataset.drawn = charts.length;
  if (reloads) scrollTo(0, sessionStorage.getItem(location.pathname) ?? 0);
});

// A page that loads itself again stays where the reader is.
const reloads = document.querySelector('meta[http-equiv="refresh"]');
if (reloads) addEventListener("pagehide", () => sessionStorage.setItem(location.pathname, scrollY));
