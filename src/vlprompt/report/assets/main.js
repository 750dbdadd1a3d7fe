// The bar of choices, and everything drawn anew when one changes.
const chosenSet = new Map();

function drawSection(part) {
  const section = data.sections[Number(part.dataset.number)], rows = shownRows(section);
  const columns = shownColumns(section.layouts.flatMap((layout) => layout.columns));
  part.hidden = !columns.length;
  const figures = part.querySelector(".figures"), single = section.layouts.every((layout) => layout.columns.length === 1);
  const curved = !["base-to-novel", "cross-dataset", "domain", "transfer"].includes(section.protocol);
  const drawn = !rows.length || part.hidden ? [] : section.protocol === "base-to-novel" ? scatters(section, rows)
    : !curved ? averageStrip(section, rows) : single ? strips(section, rows) : curves(section, rows);
  const round = rows.length && !part.hidden ? radar(section, rows) : null;
  if (round) drawn.splice(drawn.length && drawn[0].classList.contains("large") ? 1 : drawn.length, 0, round);
  figures.replaceChildren(...drawn);
  const widest = Math.max(0, ...section.layouts.filter((layout) => !layout.average).map((layout) => shownColumns(layout.columns).length));
  part.querySelector(".tables").style.setProperty("--least", `${Math.max(290, Math.min(1200, 150 + 84 * widest))}px`);
  part.querySelector(".tables").replaceChildren(...(rows.length ? shownLayouts(section).map((layout) => layoutTable(section, layout, rows)) : [html("p", { class: "empty" }, "No method that is shown has records here.")]));
  const choose = (name) => { chosenSet.set(section.title, name); drawSection(part); };
  const chosen = chosenSet.get(section.title) || "";
  part.querySelector(".differences").replaceChildren(...differenceTables(section, state.sets.has(chosen) ? chosen : "", choose));
}
function draw() {
  hideTip();
  document.querySelectorAll(".part").forEach(drawSection);
  element("contents").replaceChildren(...[...document.querySelectorAll("main > section")].filter((one) => !one.hidden)
    .map((one) => html("a", { href: `#${one.id}` }, one.querySelector("h2").textContent)));
  drawClasses();
  element("costs").querySelector(".tables").replaceChildren(costTable());
}

function chips(id, name, keys, chosen, label, hover) {
  const node = element(id);
  const buttons = keys.map((key) => html("button", {
    type: "button", class: "chip", "aria-pressed": "true", "data-key": String(key), onclick: () => toggle([key]),
    onpointerenter: () => hover && hover(key), onpointerleave: () => hover && hover(null), ondblclick: () => only(key),
    title: "click: hide or show; double click: this one alone",
  }, label(key)));
  const refresh = () => { buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(chosen.has(keys[i])))); draw(); };
  const toggle = (some) => { for (const key of some) if (!chosen.delete(key)) chosen.add(key); refresh(); };
  const only = (key) => { chosen.clear(); chosen.add(key); refresh(); };
  const all = html("button", { type: "button", class: "plain", onclick: () => { keys.forEach((key) => chosen.add(key)); refresh(); } }, "all");
  if (keys.length > 1) node.replaceChildren(html("span", { class: "name" }, name), all, ...buttons);
  else if (keys.length) node.replaceChildren(html("span", { class: "name" }, name), html("span", { class: "sole" }, label(keys[0])));
}

const THEMES = [["", "\u25d0 auto"], ["light", "\u2600 light"], ["dark", "\u263e dark"]];
function remember(theme) {
  // Some browsers keep nothing for pages opened from a disk.
  try { if (theme === undefined) return localStorage.getItem("vlprompt theme") || ""; localStorage.setItem("vlprompt theme", theme); } catch { return ""; }
  return theme;
}
function setTheme(theme) {
  const at = Math.max(0, THEMES.findIndex(([name]) => name === theme));
  if (theme) document.documentElement.dataset.theme = theme; else delete document.documentElement.dataset.theme;
  element("theme").textContent = THEMES[at][1];
  element("theme").onclick = () => { const [next] = THEMES[(at + 1) % THEMES.length]; remember(next); setTheme(next); };
}

chips("methods", "Methods", [...data.contenders.keys()], state.methods, methodName, fade);
chips("sets", "Data", allSets, state.sets, (name) => html("span", {}, name), null);
element("metric").replaceChildren(...data.metrics.map((metric, i) => html("option", { value: i }, metric.title + (metric.higher ? "" : " (lower is better)"))));
element("metric").onchange = (event) => { state.metric = Number(event.target.value); draw(); };
narrow.addEventListener("change", draw);
setTheme(remember());
draw();
document.documentElement.dataset.ready = "yes";
