// Recall of each class, confusions, reliability.
const detailOf = new Map(data.details.map((one) => [`${one.contender} ${one.place}`, one]));
const namesOf = new Map(data.classes.map((one) => [one.place, one.names]));
const shotsText = (shots) => (shots === null ? "all images" : shots === 1 ? "1 shot" : `${shots} shots`);
const detailPlaces = () => data.classes.map((one) => one.place).filter((place) => state.sets.has(data.places[place].dataset) &&
  data.contenders.some((_, row) => state.methods.has(row) && detailOf.has(`${row} ${place}`)));
const placeText = (place) => {
  const one = data.places[place];
  return [one.dataset, one.subset === "all" ? null : one.subset, one.protocol, one.source ? `from ${one.source}` : null, shotsText(one.shots)].filter(Boolean).join(" \u00b7 ");
};
const view = { place: null, method: null, other: null, order: "difference" };
const rowsAt = (place) => [...data.contenders.keys()].filter((row) => state.methods.has(row) && detailOf.has(`${row} ${place}`));

function chooseView() {
  const places = detailPlaces();
  if (!places.includes(view.place)) [view.place = null] = places;
  const rows = view.place === null ? [] : rowsAt(view.place);
  const reached = (row) => { const one = values.get(`${row} ${view.place} 0`); return one ? mean([...one.values()]) : -1; };
  if (!rows.includes(view.method)) [view.method = null] = [...rows].sort((a, b) => reached(b) - reached(a));
  if (!rows.includes(view.other) || view.other === view.method) [view.other = null] = rows.filter((row) => row !== view.method);
  return { places, rows };
}
function drawClasses() {
  const { places, rows } = chooseView();
  const menu = (label, name, options) => html("label", {}, `${label} `, html("select", {
    "data-view": name, onchange: (event) => { view[name] = name === "order" ? event.target.value : Number(event.target.value); drawClasses(); },
  }, options.map(([value, text]) => html("option", { value, selected: value === view[name] }, text))));
  const name = (row) => [row, data.contenders[row].name];
  element("classes").hidden = !data.classes.length;
  if (view.place === null || view.method === null) {
    element("class-controls").replaceChildren(html("p", { class: "empty" }, "Nothing that is shown has predictions."));
    for (const id of ["recall", "confusion", "reliability"]) element(id).hidden = true;
    return;
  }
  element("class-controls").replaceChildren(
    menu("Data", "place", places.map((place) => [place, placeText(place)])), menu("Method", "method", rows.map(name)),
    ...(rows.length > 1 ? [menu("next to", "other", rows.filter((row) => row !== view.method).map(name))] : []),
    menu("Classes by", "order", [["difference", "difference"], ["recall", "recall"], ["name", "name"]]));
  for (const id of ["recall", "confusion", "reliability"]) element(id).hidden = false;
  drawRecall();
  drawConfusion();
  drawReliability(rows);
}
function redraw(id, title, remark, ...children) {
  element(id).replaceChildren(html("figcaption", {}, html("h3", {}, title), remark ? html("span", { class: "remark" }, remark) : null), ...children);
}
function drawRecall() {
  const one = detailOf.get(`${view.method} ${view.place}`).recall;
  const other = view.other === null ? {} : detailOf.get(`${view.other} ${view.place}`).recall;
  const names = Object.keys(one), gain = (name) => one[name] - (other[name] ?? 0);
  if (view.order === "difference") names.sort((a, b) => gain(b) - gain(a) || one[b] - one[a]);
  else if (view.order === "recall") names.sort((a, b) => one[b] - one[a]);
  else names.sort((a, b) => a.localeCompare(b));
  const [width, left] = narrow.matches ? [390, 118] : [560, 158], step = 18, height = 26 + step * names.length, x = scale(left, width - 40, 0, 100);
  const node = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Recall by class" });
  for (const at of [0, 25, 50, 75, 100]) {
    node.append(svg("line", { class: "gridline", x1: x(at), x2: x(at), y1: 0, y2: height - 20 }), svg("text", { x: x(at), y: height - 5, "text-anchor": "middle" }, `${at}`));
  }
  names.forEach((name, i) => {
    const y = i * step + 4, color = colorOf(view.method), has = name in other;
    node.append(svg("text", { x: left - 8, y: y + 10, "text-anchor": "end" }, short(name, narrow.matches ? 18 : 24)),
      svg("rect", { x: x(0), y: y + 1, width: Math.max(0.5, x(one[name]) - x(0)), height: step - 7, rx: 2, fill: color, "fill-opacity": 0.75 }));
    if (has) node.append(svg("line", { x1: x(other[name]), x2: x(other[name]), y1: y - 1, y2: y + step - 5, stroke: "var(--ink)", "stroke-width": 2 }),
      svg("text", { x: width - 2, y: y + 10, "text-anchor": "end" }, signed(gain(name))));
    const rows = [[view.method, "", number(one[name])], ...(has ? [[view.other, "", number(other[name])], [null, "difference", signed(gain(name))]] : [])];
    node.append(hovers(svg("rect", { class: "hit", x: 0, y: y - 3, width, height: step }), name, rows));
  });
  const against = view.other === null ? "" : `; stroke: ${data.contenders[view.other].name}`;
  redraw("recall", "Recall by class, %", `bar: ${data.contenders[view.method].name}${against}`, html("div", { class: names.length > 34 ? "tall" : null }, node));
}

const MOST_CLASSES = 60;
function drawConfusion() {
  const detail = detailOf.get(`${view.method} ${view.place}`), names = namesOf.get(view.place), cells = [];
  for (let i = 0; i < detail.confusion.length; i += 3) cells.push(detail.confusion.slice(i, i + 3));
  if (!cells.length) { redraw("confusion", "Confusions", null, html("p", { class: "empty" }, "These records have no predictions.")); return; }
  const totals = new Map(), wrong = new Map();
  for (const [truth, said, times] of cells) {
    totals.set(truth, (totals.get(truth) || 0) + times);
    if (truth !== said) for (const one of [truth, said]) wrong.set(one, (wrong.get(one) || 0) + times);
  }
  const most = names.length > MOST_CLASSES, nameOf = (label) => names[label] || `class ${label}`;
  const kept = most ? [...wrong.keys()].sort((a, b) => wrong.get(b) - wrong.get(a) || a - b).slice(0, MOST_CLASSES).sort((a, b) => a - b) : [...names.keys()];
  const index = new Map(kept.map((label, i) => [label, i]));
  const size = 560, left = kept.length <= 50 ? 128 : 8, side = (size - left - 4) / kept.length, height = size - left + 8;
  const node = svg("svg", { viewBox: `0 0 ${size} ${height}`, role: "img", "aria-label": "Confusion matrix" });
  node.append(svg("rect", { x: left, y: 2, width: side * kept.length, height: side * kept.length, fill: "none", class: "axis" }));
  if (kept.length <= 50) kept.forEach((label, i) => node.append(svg("text", { x: left - 6, y: 2 + side * (i + 0.5) + 3, "text-anchor": "end", style: `font-size: ${Math.max(6, Math.min(11, side * 0.9)).toFixed(1)}px` },
    short(nameOf(label), 22))));
  for (const [truth, said, times] of cells) {
    if (!index.has(truth) || !index.has(said)) continue;
    const share = times / totals.get(truth);
    node.append(hovers(svg("rect", {
      x: left + side * index.get(said), y: 2 + side * index.get(truth), width: Math.max(0.5, side - 0.5), height: Math.max(0.5, side - 0.5),
      fill: truth === said ? "var(--right)" : "var(--wrong)", "fill-opacity": (0.06 + 0.94 * Math.sqrt(share)).toFixed(3),
    }), `${nameOf(truth)} \u2192 ${nameOf(said)}`, [[null, "images", `${times} of ${totals.get(truth)} (${number(100 * share)} %)`]]));
  }
  const worst = cells.filter(([truth, said]) => truth !== said).sort((a, b) => b[2] / totals.get(b[0]) - a[2] / totals.get(a[0])).slice(0, 8);
  const remark = `rows: what it is, columns: what is said${most ? `; the ${kept.length} most confused classes` : ""}${detail.left ? `; ${detail.left} rarer answers left out` : ""}`;
  redraw("confusion", `Confusions of ${data.contenders[view.method].name}`, remark, node, html("ul", { class: "confusions" }, worst.map(([truth, said, times]) =>
    html("li", {}, html("b", {}, nameOf(truth)), ` taken for ${nameOf(said)}: ${number((100 * times) / totals.get(truth))} %`))));
}

function reliabilityPanel(row) {
  const bins = detailOf.get(`${row} ${view.place}`).reliability, size = 200;
  const { node, x, y, box } = frame({ width: size, height: size, xRange: [0, 100], yRange: [0, 100], label: "reliability", wanted: 2 });
  const most = Math.max(...bins.map(([times]) => times)), wide = (box.right - box.left) / bins.length, color = colorOf(row);
  bins.forEach(([times, confidence, accuracy], i) => {
    if (!times) return;
    const left = box.left + wide * i, high = (box.bottom - box.top) * 0.16 * (times / most);
    node.append(svg("rect", { x: left + 0.7, width: wide - 1.4, y: y(accuracy), height: box.bottom - y(accuracy), fill: color, "fill-opacity": 0.3 + 0.6 * Math.sqrt(times / most) }),
      svg("line", { x1: left, x2: left + wide, y1: y(confidence), y2: y(confidence), stroke: "var(--ink)", "stroke-width": 1.4 }),
      svg("rect", { x: left + 0.7, width: wide - 1.4, y: box.bottom - high, height: high, fill: "var(--ink)", "fill-opacity": 0.28 }),
      hovers(svg("rect", { class: "hit", x: left, y: box.top, width: wide, height: box.bottom - box.top }), data.contenders[row].name, [[null, "said", `${number(confidence)} %`],
        [null, "right", `${number(accuracy)} %`], [null, "images", count(times)]]));
  });
  node.append(svg("line", { class: "cross", x1: x(0), y1: y(0), x2: x(100), y2: y(100) }));
  return node;
}
function drawReliability(rows) {
  const shown = rows.filter((row) => detailOf.get(`${row} ${view.place}`).reliability.length);
  const metric = data.metrics.findIndex((one) => one.name === "ece");
  const panels = shown.map((row) => {
    const error = values.get(`${row} ${view.place} ${metric}`);
    return html("div", { "data-m": row }, html("div", { class: "method" }, swatch(row), `${data.contenders[row].name}${error ? `: ${number(mean([...error.values()]))}` : ""}`), reliabilityPanel(row));
  });
  redraw("reliability", "Reliability", "bar: how often right, stroke: what was said, both %; below: share of the images; number: calibration error", shown.length ?
    html("div", { class: "panels" }, panels) : html("p", { class: "empty" }, "These records have no predictions."));
}
