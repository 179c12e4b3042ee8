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
