// Base against novel, and all data sets at once.
function scatterPanel(layout, rows, large) {
  const [baseColumn, novelColumn] = layout.columns;
  const found = rows.map((row) => [row, evaluate(row, baseColumn), evaluate(row, novelColumn)]).filter(([, b, n]) => measured(b) && measured(n));
  const ends = (i) => found.flatMap((one) => [one[i].mean - (one[i].deviation || 0), one[i].mean + (one[i].deviation || 0)]);
  const width = large ? 640 : 310, height = large ? 546 : 250;
  const xRange = range(ends(1)), yRange = range(ends(2));
  const { node, x, y, box } = frame({ width, height, xRange, yRange, xName: "base", yName: "novel", label: `${titleOf(layout)}: base against novel`, wanted: large ? 7 : 4 });
  for (const h of ticks(Math.max(1, harmonic(xRange[0], yRange[0])), harmonic(xRange[1], yRange[1]), large ? 5 : 3)) {
    // Points with the same harmonic mean h: novel = h base / (2 base - h).
    const line = [];
    for (let i = 0; i <= 60; i += 1) {
      const b = xRange[0] + ((xRange[1] - xRange[0]) * i) / 60, n = (h * b) / (2 * b - h);
      if (2 * b > h && n >= yRange[0] && n <= yRange[1]) line.push([x(b), y(n)]);
    }
    if (line.length < 2) continue;
    node.append(svg("path", { class: "iso", d: line.map(([a, b], i) => `${i ? "L" : "M"}${a.toFixed(1)} ${b.toFixed(1)}`).join("") }));
    const [endX, endY] = line[0];
    node.append(svg("text", { x: Math.max(endX + 3, box.left + 3), y: Math.max(endY + 10, box.top + 10), style: "font-size: 10px" }, `H ${h}`));
  }
  for (const [row, b, n] of found) {
    const color = colorOf(row), group = svg("g", { "data-m": row });
    if (b.deviation !== null) group.append(svg("line", { x1: x(b.mean - b.deviation), x2: x(b.mean + b.deviation), y1: y(n.mean), y2: y(n.mean), stroke: color, "stroke-opacity": 0.5 }));
    if (n.deviation !== null) group.append(svg("line", { x1: x(b.mean), x2: x(b.mean), y1: y(n.mean - n.deviation), y2: y(n.mean + n.deviation), stroke: color, "stroke-opacity": 0.5 }));
    group.append(marker(row, x(b.mean), y(n.mean), large ? 1.35 : 1));
    node.append(group);
  }
  node.append(svg("rect", {
    class: "hit", x: 0, y: 0, width, height, onpointerleave: hideTip,
    onpointermove: (event) => {
      const [px, py] = pointIn(node, event);
      const distance = ([, b, n]) => (x(b.mean) - px) ** 2 + (y(n.mean) - py) ** 2;
      const near = [...found].sort((a, b) => distance(a) - distance(b))[0];
      if (!near || distance(near) > 900) { hideTip(); return; }
      const [row, b, n] = near;
      showTip(event, titleOf(layout), [[row, "", ""], [null, "base", valueText(b)], [null, "novel", valueText(n)], [null, layout.average ? "H of the means" : "H", number(harmonic(b.mean, n.mean))]]);
    },
  }));
  return node;
}
function scatters(section, rows) {
  if (!data.metrics[state.metric].higher) return [];
  const layouts = shownLayouts(section);
  return layouts.map((layout, i) => {
    const large = i === 0 && largeFirst(layouts);
    const panel = figure(titleOf(layout), i ? null : "up and right is better; dotted: equal H", scatterPanel(layout, rows, large));
    if (large) panel.classList.add("large");
    return panel;
  });
}

// Every axis has its own scale: the centre is a little below the lowest that is shown, the rim the best.
function radar(section, rows) {
  const axes = shownColumns(section.radar);
  if (axes.length < 3) return null;
  const complete = rows.map((row) => [row, axes.map((axis) => evaluate(row, axis))]).filter(([, cells]) => cells.every(measured));
  if (complete.length < 2) return null;
  const better = data.metrics[state.metric].higher, [width, height, radius] = narrow.matches ? [400, 340, 108] : [640, 486, 172], cx = width / 2, cy = height / 2 + 4;
  const scales = axes.map((_, i) => {
    const means = complete.map(([, cells]) => cells[i].mean), low = Math.min(...means), high = Math.max(...means), pad = 0.25 * (high - low || 1);
    return better ? scale(0, 1, low - pad, high) : scale(1, 0, low, high + pad);
  });
  const at = (i, part) => {
    const angle = (2 * Math.PI * i) / axes.length - Math.PI / 2;
    return [cx + radius * part * Math.cos(angle), cy + radius * part * Math.sin(angle)];
  };
  const ring = (parts) => `${parts.map((part, i) => `${i ? "L" : "M"}${at(i, part).map((one) => one.toFixed(1)).join(" ")}`).join("")}Z`;
  const node = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${section.title}: all data sets` });
  for (const part of [0.25, 0.5, 0.75, 1]) node.append(svg("path", { class: part === 1 ? "axis" : "gridline", d: ring(axes.map(() => part)) }));
  const labels = svg("g");
  axes.forEach((axis, i) => {
    const [ex, ey] = at(i, 1), [lx, ly] = at(i, 1.09), [, cells] = complete[0];
    const top = Math.max(...complete.map(([, some]) => some[i].mean)), low = Math.min(...complete.map(([, some]) => some[i].mean));
    const anchor = Math.abs(lx - cx) < 30 ? "middle" : lx > cx ? "start" : "end";
    node.append(svg("line", { class: "gridline", x1: cx, y1: cy, x2: ex, y2: ey }));
    const label = svg("text", { class: "strong", x: lx, y: ly + (ly < cy - 0.6 * radius ? -8 : ly > cy + 0.6 * radius ? 6 : 0), "text-anchor": anchor }, short(axis.label, 22), svg("tspan", { x: lx, dy: 14, style: "font-weight: 400" }, `${number(low)} to ${number(top)}`));
    labels.append(hovers(label, axis.label, () => orderedTip(complete.map(([row, some]) => [row, some[i]]))));
    if (!cells[i]) throw new Error("a radar axis without values");
  });
  for (const [row, cells] of complete) {
    node.append(svg("g", { "data-m": row },
      svg("path", { d: ring(cells.map((value, i) => scales[i](value.mean))), fill: "none", stroke: colorOf(row), "stroke-width": 1.8, "stroke-dasharray": dashOf(row), "stroke-linejoin": "round" }),
      cells.map((value, i) => hovers(marker(row, ...at(i, scales[i](value.mean)), 0.75), axes[i].label, [[row, "", valueText(value)]]))));
  }
  node.append(labels);
  const left = rows.length - complete.length, what = section.protocol === "base-to-novel" ? "H" : data.metrics[state.metric].title;
  const panel = figure("All data sets", `${what}; each axis from the lowest to the best shown${left ? `; ${left} with missing cells left out` : ""}`, node);
  panel.classList.add("large");
  return panel;
}
