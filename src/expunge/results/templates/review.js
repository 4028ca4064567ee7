"use strict";
(() => {
  const found = JSON.parse(document.getElementById("review").textContent);
  const { classes, suspects, served } = found;
  const at = (id) => document.getElementById(id);
  const stored = `expunge review ${found.title} ${suspects.length} ${suspects[0].index}`;
  let decisions = new Map(Object.entries(found.decisions));
  if (!served) {
    try {
      const kept = localStorage.getItem(stored);
      if (kept) decisions = new Map(Object.entries(JSON.parse(kept)));
    } catch (error) {
      warn("This browser keeps nothing for a page from a file: download the list before you close it.");
    }
  }
  const undecided = (i) => !decisions.has(String(suspects[i].index));
  let here = Math.max(0, suspects.findIndex((_, i) => undecided(i)));
  const unsaved = new Set();

  function warn(text) {
    at("warning").textContent = text;
    at("warning").hidden = !text;
  }

  // ---- what a row looks like
  const texts = new Map();
  function show(box, index) {
    if (found.pictures) {
      const image = new Image();
      image.alt = `row ${index}`;
      image.src = served ? `picture/${index}` : found.shown[index];
      box.replaceChildren(image);
      return;
    }
    const text = document.createElement("pre");
    box.replaceChildren(text);
    if (!served) {
      text.textContent = found.shown[index];
    } else if (texts.has(index)) {
      text.textContent = texts.get(index);
    } else {
      fetch(`text/${index}`).then((answer) => answer.text()).then((said) => {
        texts.set(index, said);
        text.textContent = said;
      }).catch(() => { text.textContent = "not to be had: is the command still running?"; });
    }
  }

  function described(decision) {
    if (!decision) return "no";
    const [verdict, label] = decision;
    return verdict === "bad" && label !== null ? `bad, is ${classes[label]}` : verdict;
  }

  function draw() {
    const suspect = suspects[here];
    const decision = decisions.get(String(suspect.index));
    at("place").textContent = `${(here + 1).toLocaleString("en")} of ${suspects.length.toLocaleString("en")}, worst first`;
    at("given").textContent = classes[suspect.given];
    at("suggested").textContent = suspect.suggested === null ? "none" : classes[suspect.suggested];
    at("row").textContent = suspect.name || String(suspect.index);
    at("by").textContent = `${suspect.detector} (score ${suspect.score.toPrecision(3)})`;
    at("decided").textContent = described(decision);
    show(at("shown"), suspect.index);
    at("nearest").replaceChildren(...suspect.nearest.map((near) => {
      const figure = document.createElement("figure");
      const box = document.createElement("div");
      const caption = document.createElement("figcaption");
      caption.textContent = classes[near.label];
      show(box, near.index);
      figure.append(box, caption);
      return figure;
    }));
    const chosen = !decision ? "u" : decision[0] === "good" ? "g"
      : decision[1] === null ? "b" : decision[1] === suspect.suggested ? "s" : "o";
    for (const button of at("buttons").children) button.classList.toggle("chosen", button.dataset.key === chosen);
    at("buttons").querySelector("[data-key=s]").disabled = suspect.suggested === null;
    if (served && found.pictures && here + 1 < suspects.length) new Image().src = `picture/${suspects[here + 1].index}`;
    let bad = 0, good = 0, relabelled = 0;
    for (const [verdict, label] of decisions.values()) {
      if (verdict === "good") good += 1; else if (label === null) bad += 1; else relabelled += 1;
    }
    const done = bad + good + relabelled;
    at("count").textContent = `${done.toLocaleString("en")} of ${suspects.length.toLocaleString("en")} decided: `
      + `${bad} bad, ${relabelled} with another label, ${good} good`;
    at("done").style.width = `${(100 * done) / suspects.length}%`;
  }

  // ---- decisions
  async function save(index) {
    if (!served) {
      try { localStorage.setItem(stored, JSON.stringify(Object.fromEntries(decisions))); } catch (error) { /* said above */ }
      return;
    }
    unsaved.add(index);
    // one after the other, so that the last word on a row is the last one sent
    saving = saving.then(async () => {
      for (const row of [...unsaved]) {
        const [verdict, label] = decisions.get(String(row)) || [null, null];
        try {
          const answer = await fetch("decide", {
            method: "POST", headers: { "Content-Type": "application/json" },
            body: JSON.stringify({ index: row, verdict, label }),
          });
          if (!answer.ok) throw new Error(await answer.text());
          unsaved.delete(row);
          warn("");
        } catch (error) {
          warn(`${unsaved.size} decisions are not saved (${error.message}). Is the command still running?`);
          return;
        }
      }
    });
    await saving;
  }
  let saving = Promise.resolve();

  function decide(verdict, label) {
    const suspect = suspects[here];
    const key = String(suspect.index);
    if (verdict === null) decisions.delete(key);
    else if (label !== null) decisions.set(key, [label === suspect.given ? "good" : "bad", label]);
    else decisions.set(key, [verdict, verdict === "good" ? suspect.given : null]);
    save(suspect.index);
    if (verdict !== null && here + 1 < suspects.length) here += 1;
    draw();
  }

  function next() {
    for (let step = 1; step <= suspects.length; step += 1) {
      const i = (here + step) % suspects.length;
      if (undecided(i)) { here = i; break; }
    }
    draw();
  }

  function press(key) {
    const suggested = suspects[here].suggested;
    if (key === "b" || key === "g") decide(key === "b" ? "bad" : "good", null);
    else if (key === "s" && suggested !== null) decide("bad", suggested);
    else if (key === "u") decide(null, null);
    else if (key === "o") { at("other").hidden = false; at("label").value = ""; at("label").focus(); }
    else if (key === "n") next();
    else if (key === "ArrowLeft" && here > 0) { here -= 1; draw(); }
    else if (key === "ArrowRight" && here + 1 < suspects.length) { here += 1; draw(); }
    else if (/^[1-9]$/.test(key) && Number(key) <= classes.length) decide("bad", Number(key) - 1);
    else return false;
    return true;
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") { at("other").hidden = true; at("label").blur(); return; }
    if (event.target === at("label")) return;
    if (press(event.key)) event.preventDefault();
  });
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-key]");
    if (button) { press(button.dataset.key); if (button.dataset.key !== "o") button.blur(); }
  });
  at("other").addEventListener("submit", (event) => {
    event.preventDefault();
    const typed = at("label").value.trim().toLowerCase();
    const begins = classes.flatMap((name, i) => (name.toLowerCase().startsWith(typed) ? [i] : []));
    const exact = classes.findIndex((name) => name.toLowerCase() === typed);
    const label = exact >= 0 ? exact : begins.length === 1 ? begins[0] : -1;
    if (label < 0) { warn(`"${at("label").value}" is ${begins.length ? "the beginning of several labels" : "no label"}.`); return; }
    warn("");
    at("other").hidden = true;
    at("label").blur();
    decide("bad", label);
  });
  window.addEventListener("beforeunload", (event) => { if (unsaved.size) event.preventDefault(); });

  // ---- the list, where nobody writes it
  function cell(value) {
    const text = String(value);
    const plain = /^[=+\-@\t\r]/.test(text) && !/^[+-]?[0-9.]+(e[+-]?[0-9]+)?$/i.test(text) ? `'${text}` : text;
    return /[",\n\r]/.test(plain) ? `"${plain.replaceAll('"', '""')}"` : plain;
  }
  at("download").addEventListener("click", () => {
    const named = suspects.some((suspect) => suspect.name);
    const lines = [["index", ...(named ? ["name"] : []), "is_label_issue", "given_label", "true_label"]];
    for (const suspect of suspects) {
      const decision = decisions.get(String(suspect.index));
      if (!decision) continue;
      lines.push([suspect.index, ...(named ? [suspect.name] : []), decision[0] === "bad" ? "True" : "False",
        classes[suspect.given], decision[1] === null ? "" : classes[decision[1]]]);
    }
    const text = lines.map((line) => line.map(cell).join(",")).join("\n") + "\n";
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.download = found.file;
    link.click();
    URL.revokeObjectURL(link.href);
  });

  at("download").hidden = served;
  at("labels").replaceChildren(...classes.map((name) => { const option = document.createElement("option"); option.value = name; return option; }));
  at("digits").replaceChildren(...classes.slice(0, 9).map((name, i) => {
    const item = document.createElement("li");
    const key = document.createElement("kbd");
    key.textContent = String(i + 1);
    item.append(key, ` ${name}`);
    return item;
  }));
  draw();
})();
