// Accuracy by shots, one panel per table; with one number of shots, a line of points instead.
const unit = () => data.metrics[state.metric].unit;
const orderedTip = (found) => [...found].sort((a, b) => b[1].mean - a[1].mean)
  .map(([contender, value]) => [contender, "", valueText(value)]);

function curvePanel(section, layout, rows, large) {
  const columns = shownColumns(layout.columns);
  const all = section.layouts[0].columns.map((column) => column.shots).filter((one) => one !== null);
  const last = Math.log2(Math.max(...all, 1));
  const place = (column) => (column.shots === null ? last + 1 : Math.log2(Math.max(column.shots, 0.5)));
  const found = rows.map((row) => [row, columns.map((column) => evaluate(row, column))]);
  const numbers = found.flatMap(([, cells]) => cells.filter(measured).flatMap((one) => [one.mean - (one.deviation || 0), one.mean + (one.deviation || 0)]));
  const xs = columns.map((column) => [place(column), column.shots === null ? "all" : String(column.shots)]);
  const { node, x, y, box } = frame({
    width: large ? 640 : 310, height: large ? 486 : 218, xs, xRange: [xs[0][0] - 0.15, xs[xs.length - 1][0] + 0.15], yRange: range(numbers),
    xName: large ? "images per class" : null, label: `${titleOf(layout)}: ${data.metrics[state.metric].title} by shots`, wanted: large ? 7 : 4,
  });
  const cross = svg("line", { class: "cross", y1: box.top, y2: box.bottom, visibility: "hidden" });
  node.append(cross);
  const names = [];
  for (const [row, cells] of found) {
    const points = cells.map((value, i) => [x(xs[i][0]), value]).filter(([, value]) => measured(value));
    if (!points.length) continue;
    const color = colorOf(row), line = (values) => values.map(([at, one], i) => `${i ? "L" : "M"}${at.toFixed(1)} ${y(one).toFixed(1)}`).join("");
    const spread = points.filter(([, value]) => value.deviation !== null);
    const group = svg("g", { "data-m": row });
    if (spread.length > 1) {
      const up = spread.map(([at, value]) => [at, value.mean + value.deviation]), down = spread.map(([at, value]) => [at, value.mean - value.deviation]);
      group.append(svg("path", { d: `${line(up)}${line(down.reverse()).replace("M", "L")}Z`, fill: color, "fill-opacity": 0.08 }));
    }
    for (const [at, value] of spread) {
      group.append(svg("line", { x1: at, x2: at, y1: y(value.mean - value.deviation), y2: y(value.mean + value.deviation), stroke: color, "stroke-opacity": 0.55 }));
    }
    // A gap where a cell is missing: a line that runs through it would claim what nobody measured.
    const pieces = [[]];
    cells.forEach((value, i) => { if (measured(value)) pieces[pieces.length - 1].push([x(xs[i][0]), value.mean]); else pieces.push([]); });
    group.append(svg("path", { d: pieces.filter((one) => one.length).map(line).join(""), fill: "none", stroke: color, "stroke-width": 1.8, "stroke-dasharray": dashOf(row), "stroke-linejoin": "round" }));
    if (data.contenders[row].seedless && large) {
      const [at, value] = points[points.length - 1];
      names.push([at, y(value.mean) - 5, group, data.contenders[row].name]);
    }
    if (!data.contenders[row].seedless) for (const [at, value] of points) group.append(marker(row, at, y(value.mean), large ? 1 : 0.78));
    node.append(group);
  }
  // From the lowest line up: a name that would stand on another one stands above it.
  let free = Infinity;
  for (const [at, wanted, group, name] of names.sort((a, b) => b[1] - a[1])) {
    const height = Math.min(wanted, free);
    node.append(svg("text", { class: "named", "data-m": group.dataset.m, x: at, y: height, "text-anchor": "end" }, name));
    free = height - 13;
  }
  node.append(svg("rect", {
    class: "hit", x: 0, y: 0, width: large ? 640 : 310, height: large ? 486 : 218,
    onpointermove: (event) => {
      const [at] = pointIn(node, event);
      const near = xs.map(([one]) => Math.abs(x(one) - at)), i = near.indexOf(Math.min(...near));
      cross.setAttribute("x1", x(xs[i][0]));
      cross.setAttribute("x2", x(xs[i][0]));
      cross.setAttribute("visibility", "visible");
      const cells = found.map(([row, values]) => [row, values[i]]).filter(([, value]) => measured(value));
      showTip(event, `${titleOf(layout)}, ${columns[i].label}`, orderedTip(cells));
    },
    onpointerleave: () => { cross.setAttribute("visibility", "hidden"); hideTip(); },
  }));
  return node;
}
function curves(section, rows) {
  const layouts = shownLayouts(section);
  return layouts.map((layout, i) => {
    const large = i === 0 && largeFirst(layouts);
    const panel = figure(titleOf(layout), i ? null : `${data.metrics[state.metric].title}, ${unit()}; bars and bands: \u00b1 one standard deviation`,
      curvePanel(section, layout, rows, large));
    if (large) panel.classList.add("large");
    return panel;
  });
}

// One line per method, a small dot per seed: for tables with a single column.
function strip(title, column, rows, width = 420) {
  const found = rows.map((row) => [row, evaluate(row, column)]).filter(([, value]) => measured(value));
  const step = 24, left = 132, height = 28 + step * Math.max(1, found.length);
  const numbers = found.flatMap(([, value]) => [value.mean, ...value.bySeed.map(([, one]) => one)]);
  const [low, high] = range(numbers, 0.1), x = scale(left, width - 46, Math.max(0, low), high);
  const node = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${title}: ${data.metrics[state.metric].title}` });
  for (const one of ticks(Math.max(0, low), high, 4)) {
    node.append(svg("line", { class: "gridline", x1: x(one), x2: x(one), y1: 4, y2: height - 22 }), svg("text", { x: x(one), y: height - 7, "text-anchor": "middle" }, String(one)));
  }
  found.forEach(([row, value], i) => {
    const at = 16 + i * step, name = data.contenders[row].name;
    const group = svg("g", { "data-m": row },
      svg("text", { x: left - 12, y: at + 4, "text-anchor": "end" }, short(name, 20)),
      svg("line", { class: "gridline", x1: left, x2: width - 46, y1: at, y2: at }));
    for (const [, one] of value.bySeed) group.append(svg("circle", { cx: x(one), cy: at, r: 2.6, fill: colorOf(row), "fill-opacity": 0.45 }));
    group.append(marker(row, x(value.mean), at, 1.05), svg("text", { class: "strong", x: width - 4, y: at + 4, "text-anchor": "end" }, number(value.mean)),
      hovers(svg("rect", { class: "hit", x: 0, y: at - step / 2, width, height: step }), title,
        [[row, "", valueText(value)], ...value.bySeed.map(([seed, one]) => [null, `seed ${seed}`, one.toFixed(2)])]));
    node.append(group);
  });
  return node;
}
const strips = (section, rows) => {
  const layouts = shownLayouts(section);
  return layouts.map((layout, i) => {
    const large = layouts.length < 3 && !narrow.matches;
    const panel = figure(titleOf(layout), i ? null : `${data.metrics[state.metric].title}, ${unit()}; dots: seeds`,
      strip(titleOf(layout), layout.columns[0], rows, large ? 640 : 420));
    if (large) panel.classList.add("broad");
    return panel;
  });
};
// The averaged column of a table whose columns are data sets.
function averageStrip(section, rows) {
  const column = shownColumns(section.layouts[0].columns).find((one) => one.datasets.length > 1);
  if (!column || shownSets([column]).length < 2) return [];
  const kept = shownSets([column]).length, all = column.datasets.length;
  const panel = figure(column.label, `${data.metrics[state.metric].title}, ${unit()}; ${kept < all ? `${kept} of ${all}` : all} data sets; dots: seeds`, strip(column.label, column, rows, narrow.matches ? 420 : 640));
  panel.classList.add("broad");
  return [panel];
}
