// Makes tables sortable and long ones filterable. Without it the page is whole, only still.
(() => {
  "use strict";
  const make = (name, given = {}, ...children) => {
    const node = Object.assign(document.createElement(name), given);
    node.append(...children);
    return node;
  };
  const said = make("p", { className: "unseen" });
  said.setAttribute("role", "status");
  document.querySelector("main").append(said);

  const shown = (row, column) => {
    const cell = row.cells[column];
    if (!cell) return "";
    const text = cell.dataset.v ?? cell.textContent.trim();
    return text === "–" ? "" : text;
  };
  const number = (text) => {
    const found = /^[+-]?(\d[\d,]*\.?\d*|\.\d+)(e[+-]?\d+)?/i.exec(text);
    return found && Number(found[0].replaceAll(",", ""));
  };

  function sortable(table, name) {
    const body = table.tBodies[0];
    const written = [...body.rows];
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      if (!head.textContent.trim()) return;
      const button = make("button", { type: "button", className: "sorter" }, ...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const next = { none: "ascending", ascending: "descending", descending: "none" };
        const way = next[head.getAttribute("aria-sort")];
        heads.forEach((other) => other.hasAttribute("aria-sort") && other.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", way);
        const keyed = written.map((row) => [shown(row, column), row]);
        const numeric = keyed.every(([key]) => key === "" || number(key) !== null);
        const sign = way === "descending" ? -1 : 1;
        const compare = (a, b) => {
          if (a === "" || b === "") return (a === "") - (b === "");
          return sign * (numeric ? number(a) - number(b) : a.localeCompare(b, "en", { numeric: true }));
        };
        if (way !== "none") keyed.sort(([a], [b]) => compare(a, b));
        body.append(...keyed.map(([, row]) => row));
        said.textContent = `${name}: ${way === "none" ? "as written" : `sorted by ${button.textContent}, ${way}`}`;
      });
    });
  }

  function filterable(table, name) {
    const rows = [...table.tBodies[0].rows];
    const count = make("output", { className: "muted" });
    const field = make("input", { type: "search", autocomplete: "off", spellcheck: false });
    const box = make("label", { className: "filter" }, "Filter ", field);
    field.setAttribute("aria-label", `Filter ${name}`);
    field.addEventListener("input", () => {
      const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
      let left = 0;
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
        left += !row.hidden;
      }
      count.textContent = words.length ? `${left} of ${rows.length} rows` : "";
    });
    (table.closest(".wide") ?? table).before(make("p", { className: "filters" }, box, " ", count));
  }

  let name = document.title;
  for (const node of document.querySelectorAll("h2, h3, h4, summary, table")) {
    if (node.tagName !== "TABLE") {
      name = node.textContent.trim();
    } else if (node.tHead && node.tBodies.length === 1) {
      const rows = node.tBodies[0].rows.length;
      if (rows > 2) sortable(node, name);
      if (rows > 11) filterable(node, name);
      const wide = node.closest(".wide");
      if (wide) wide.dataset.name = name;
    }
  }

  // What scrolls sideways must be within reach of the keyboard.
  const reach = () => {
    for (const node of document.querySelectorAll(".wide, pre")) {
      if (node.scrollWidth > node.clientWidth) {
        node.tabIndex = 0;
        node.setAttribute("role", "group");
        node.setAttribute("aria-label", node.dataset.name ?? "Command");
      } else {
        for (const given of ["tabindex", "role", "aria-label"]) node.removeAttribute(given);
      }
    }
  };
  reach();
  addEventListener("resize", reach);
  for (const part of document.querySelectorAll("details")) part.addEventListener("toggle", reach);

  // Paper has nothing to click: what is folded is printed open, save what only repeats the page.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open], .repeats)")];
    for (const part of folded) part.open = true;
  });
  addEventListener("afterprint", () => {
    for (const part of folded) part.open = false;
  });
})();
