"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;

  /** Make an element; text is set as text, never read as HTML. */
  function make(tag, content, attributes) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) made.setAttribute(name, value);
    for (const part of Array.isArray(content) ? content : [content])
      if (part !== null && part !== undefined) made.append(part);
    return made;
  }

  // ---- theme ----

  const theme = document.getElementById("theme");
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : prefersDark.matches);

  function remembered(value) {
    try {  // a page opened from a file may have no storage
      if (value) localStorage.setItem("expunge-theme", value);
      return localStorage.getItem("expunge-theme");
    } catch (error) {
      return null;
    }
  }

  function applyTheme() {
    theme.textContent = isDark() ? "Light theme" : "Dark theme";
    drawCharts();
  }

  // ---- charts ----

  const drawn = new Map();

  function chartConfig() {
    const style = getComputedStyle(root);
    const [ink, faint, line] = ["--ink", "--faint", "--line"].map((name) => style.getPropertyValue(name).trim());
    return {
      background: "transparent",
      font: getComputedStyle(document.body).fontFamily,
      text: { color: ink },
      title: { color: ink, subtitleColor: faint },
      header: { labelColor: ink, labelFontSize: 12 },
      axis: { labelColor: ink, titleColor: faint, gridColor: line, domainColor: faint, tickColor: faint,
        labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal" },
      legend: { labelColor: ink, titleColor: faint, labelFontSize: 12 },
      view: { stroke: null },
    };
  }

  async function draw(where, specification) {
    const given = JSON.parse(JSON.stringify(specification));
    given.config = chartConfig();
    const isMap = Boolean(given.concat);
    if (isMap) given.columns = columnsOf(given, where.clientWidth);
    const before = drawn.get(where);
    if (before) before.finalize();
    // An interpreter in place of generated code: the page forbids eval.
    const result = await vegaEmbed(where, given, {
      ast: true, actions: false, renderer: "svg", tooltip: isMap ? pointAt : { theme: isDark() ? "dark" : "light" },
    });
    drawn.set(where, result);
    if (isMap) result.view.addEventListener("click", (event, item) => {
      const number = cellOf(item);
      if (number !== null) open(number);
    });
    // The label of the element says what the picture shows; its marks would be read one by one.
    where.querySelectorAll("svg").forEach((svg) => svg.setAttribute("aria-hidden", "true"));
  }

  function drawCharts() {
    for (const where of document.querySelectorAll("[data-chart]")) {
      const given = data.charts[where.dataset.chart];
      draw(where, given.concat ? given : { ...given, width: "container" });
    }
  }

  /** How many heat maps stand beside each other; each needs room for its labels and the gap. */
  function columnsOf(map, width) {
    const fit = Math.max(1, Math.floor((width - 50) / (map.concat[0].width + 90)));
    return Math.min(fit, map.concat.length);
  }

  const cellOf = (item) => (item && item.datum && Number.isInteger(item.datum.cell) ? item.datum.cell : null);

  function pointAt(handler, event, item, value) {
    const number = value === null || value === undefined ? null : cellOf(item);
    if (number === null) hush();
    else tell(number, { left: event.clientX + 8, top: event.clientY, bottom: event.clientY + 8 });
  }

  // ---- tooltip ----

  const tooltip = document.getElementById("tooltip");
  let described = null;

  function tell(number, place, button) {
    const cell = data.cells[number];
    tooltip.replaceChildren(...[cell.title, ...cell.lines].map((line) => make("div", line)));
    tooltip.hidden = false;
    const size = tooltip.getBoundingClientRect();
    const under = place.bottom + 6 + size.height < innerHeight;
    tooltip.style.top = `${Math.max(4, under ? place.bottom + 6 : place.top - size.height - 6)}px`;
    tooltip.style.left = `${Math.max(4, Math.min(place.left, innerWidth - size.width - 8))}px`;
    if (described) described.removeAttribute("aria-describedby");
    described = button || null;
    if (described) described.setAttribute("aria-describedby", "tooltip");
  }

  const tellTile = (tile) => tell(Number(tile.dataset.cell), tile.getBoundingClientRect(), tile);

  function hush() {
    tooltip.hidden = true;
    if (described) described.removeAttribute("aria-describedby");
    described = null;
  }

  const tileOf = (event) => event.target.closest(".tile[data-cell]");
  document.addEventListener("pointerover", (event) => {
    if (event.pointerType === "touch") return;
    const tile = tileOf(event);
    if (tile) tellTile(tile);
    else if (described && !event.target.closest("#tooltip")) hush();
  });
  document.addEventListener("focusin", (event) => {
    const tile = tileOf(event);
    if (tile && tile.matches(":focus-visible")) tellTile(tile);
    else hush();
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hush(); });
  addEventListener("scroll", hush, { passive: true });

  // ---- panel ----

  const panel = document.getElementById("panel");
  const body = document.getElementById("panel-body");
  const shared = (number) => data.shared[number];

  function shown(value, heading) {
    if (value === null || value === undefined) return "–";
    return heading.endsWith("%") ? value.toFixed(1) : value.toLocaleString("en");
  }

  function table(headings, rows, label) {
    const head = make("tr", headings.map((text) => make("th", text, { scope: "col" })));
    const lines = rows.map((row) => make("tr", row.map((part, n) => (n ? make("td", part) : make("th", part, { scope: "row" })))));
    const made = make("table", [make("thead", head), make("tbody", lines)], { class: "plain" });
    return make("div", made, { class: "scroll", tabindex: "0", role: "region", "aria-label": `${label}, scrolls sideways` });
  }

  function definitions(entries) {
    return make("dl", entries.flatMap(([name, value]) => [make("dt", name), make("dd", value)]));
  }

  function runsTable(cell) {
    const columns = shared(cell.columns);
    const used = columns.map((_, n) => n).filter((n) => cell.runs.some((run) => run.values[n] !== null));
    const rows = cell.runs.map((run) => [
      `${run.seed}${run.status ? ` (${run.status})` : ""}`,
      ...used.map((n) => shown(run.values[n], columns[n])),
    ]);
    return table(["seed", ...used.map((n) => columns[n])], rows, "Runs");
  }

  function classesTable(cell) {
    const runs = cell.runs.filter((run) => run.classes);
    if (!runs.length) return null;
    const count = Math.max(...runs.map((run) => run.classes.length));
    const rows = [];
    for (let label = 0; label < count; label += 1) {
      const values = runs.map((run) => run.classes[label]);
      const present = values.filter((value) => value !== null && value !== undefined);
      const mean = present.length ? present.reduce((a, b) => a + b, 0) / present.length : null;
      const text = (value) => (value === null || value === undefined ? "–" : (100 * value).toFixed(1));
      const length = make("span", null);
      length.style.width = `${100 * (mean || 0)}%`;
      const bar = make("span", length, { class: "bar", "aria-hidden": "true" });
      rows.push([String(label), make("span", [bar, text(mean)]), ...(runs.length > 1 ? values.map(text) : [])]);
    }
    const headings = ["class", runs.length > 1 ? "mean %" : "accuracy %", ...(runs.length > 1 ? runs.map((run) => `seed ${run.seed}`) : [])];
    const made = table(headings, rows, "Accuracy by class");
    made.classList.add("bars");
    return made;
  }

  // These number the rows of a log rather than measure something.
  const counters = ["seconds", "round", "epoch"];

  /** Curves of quantities logged more than once; the others as text. */
  function curves(cell) {
    const points = [];
    const single = new Map();
    for (const run of cell.runs) {
      for (const [quantity, values] of Object.entries(run.curve || {})) {
        if (counters.includes(quantity)) continue;
        const present = values.map((value, row) => ({ value, row })).filter((point) => point.value !== null);
        if (present.length > 1)
          points.push(...present.map((point) => ({ quantity, seed: String(run.seed), ...point })));
        else if (present.length)
          single.set(quantity, [...(single.get(quantity) || []), `${present[0].value} (seed ${run.seed})`]);
      }
    }
    return { points, single };
  }

  function origins(run) {
    const from = Object.entries(shared(run.from));
    return definitions([
      ["record", make("code", run.key)],
      ["original model", make("code", shared(run.model) || "–")],
      ["task", make("code", shared(run.task) || "–")],
      ["created", run.created || "–"],
      ...from.map(([name, text]) => [name, text || "–"]),
    ]);
  }

  function copyButton(source) {
    const button = make("button", "Copy", { type: "button" });
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(source.textContent);
        button.textContent = "Copied";
      } catch (error) {
        getSelection().selectAllChildren(source);
        button.textContent = "Selected";
      }
    });
    return button;
  }

  function open(number) {
    const cell = data.cells[number];
    hush();
    document.getElementById("panel-title").textContent = cell.title;
    const parts = [make("div", cell.lines.map((line) => make("p", line)), { class: "lines" }), make("h3", "Runs"), runsTable(cell)];
    for (const run of cell.runs) if (run.error) parts.push(make("p", `Seed ${run.seed} ${run.status}:`), make("pre", run.error));
    const classes = classesTable(cell);
    if (classes) parts.push(make("h3", "Accuracy by class"), classes);
    const { points, single } = curves(cell);
    parts.push(make("h3", "Learning curves"));
    let chart = null;
    if (points.length) {
      chart = make("div", null, { class: "chart", role: "img", "aria-label": "Learning curves: what the method logged, row by row" });
      parts.push(chart);
    }
    if (single.size) parts.push(definitions([...single].map(([name, texts]) => [name, texts.join(", ")])));
    if (!points.length && !single.size) parts.push(make("p", "This method logged nothing.", { class: "note" }));
    parts.push(make("h3", "Run it again"));
    if (cell.command) {
      const code = make("code", cell.command);
      parts.push(make("pre", code, { tabindex: "0" }), copyButton(code));
    } else parts.push(make("p", "See Provenance at the end of the page; no command runs this cell alone.", { class: "note" }));
    parts.push(make("h3", "Where it comes from"));
    cell.runs.forEach((run, n) => {
      const details = make("details", [make("summary", `seed ${run.seed}`), origins(run)]);
      details.open = n === 0;
      parts.push(details);
    });
    body.replaceChildren(...parts.filter(Boolean));
    panel.showModal();
    panel.scrollTop = 0;
    document.getElementById("panel-title").focus();
    if (chart) {
      const given = JSON.parse(JSON.stringify(data.curves));
      given.columns = chart.clientWidth < 620 ? 1 : 2;
      given.spec.width = Math.min(320, Math.floor(chart.clientWidth / given.columns) - 70);
      given.datasets = { log: points };
      draw(chart, given);
    }
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-cell]");
    if (button) open(Number(button.dataset.cell));
    if (event.target === panel) panel.close();
  });
  document.getElementById("close").addEventListener("click", () => panel.close());

  // ---- sorting ----

  for (const sorted of document.querySelectorAll("table.sortable")) {
    const heads = [...sorted.tHead.rows[0].cells];
    heads.forEach((head, column) => head.firstChild.addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      const first = head.firstChild.dataset.falling ? "descending" : "ascending";
      const order = before ? (before === "descending" ? "ascending" : "descending") : first;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const key = (row) => row.cells[column].dataset.value;
      const rows = [...sorted.tBodies[0].rows].sort((left, right) => {
        const [a, b] = [key(left), key(right)];
        if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);  // absent ones last
        return sign * (column ? Number(a) - Number(b) : a.localeCompare(b));
      });
      sorted.tBodies[0].append(...rows);
    }));
  }

  // ---- a link to a card opens it ----

  function openTarget() {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target && target.tagName === "DETAILS") target.open = true;
  }
  addEventListener("hashchange", openTarget);
  document.addEventListener("click", (event) => { if (event.target.closest('a[href^="#"]')) setTimeout(openTarget); });

  theme.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    remembered(root.dataset.theme);
    applyTheme();
  });
  prefersDark.addEventListener("change", applyTheme);
  const saved = remembered();
  if (saved === "dark" || saved === "light") root.dataset.theme = saved;
  // Without a script the table is all there is of a map; with one it need not be walked through by Tab.
  for (const numbers of document.querySelectorAll("details.numbers")) numbers.open = false;
  openTarget();
  applyTheme();
})();
