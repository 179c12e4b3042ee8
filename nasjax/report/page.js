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

const config = JSON.parse(document.getElementById("charts").textContent);
const charts = [...document.querySelectorAll(".chart")].map(async (chart) => {
  const spec = JSON.parse(chart.querySelector("script").textContent);
  const options = { actions: false, ast: true, config, mode: "vega-lite", renderer: "svg" };
  try {
    const { view } = await vegaEmbed(chart.querySelector(".view"), spec, options);
    view.addEventListener("click", (event, item) => show(item?.datum?.row));
  } catch (error) {
    failed(error);
    chart.querySelector(".view").textContent = `This chart could not be drawn: ${error}`;
  }
});
Promise.all(charts).then(() => (document.documentElement.dataset.drawn = charts.length));
