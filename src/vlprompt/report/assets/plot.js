// How a method looks everywhere, axes, and the box that follows the pointer.
const colorOf = (contender) => {
  const family = data.contenders[contender].family;
  return family < 0 ? "var(--zero)" : `var(--c${family % 8})`;
};
// Overlays are solid and filled, what they are laid on is dashed and hollow; variants of one method are dotted.
const dashOf = (contender) => {
  const one = data.contenders[contender];
  if (one.seedless) return "1 3";
  return one.variant ? "1.5 3.5" : one.overlay ? null : "6 3";
};
const SHAPES = [
  "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0Z", "M-3.6-3.6H3.6V3.6H-3.6Z", "M0-4.8L4.4 3.4H-4.4Z", "M0-5L5 0L0 5L-5 0Z",
  "M0 4.8L4.4-3.4H-4.4Z", "M-1.6-4.6H1.6V-1.6H4.6V1.6H1.6V4.6H-1.6V1.6H-4.6V-1.6H-1.6Z", "M-4.6-2.7L0-5.3L4.6-2.7V2.7L0 5.3L-4.6 2.7Z",
  "M0-5.2L1.5-1.6L5.2-1.4L2.3 1L3.3 4.7L0 2.6L-3.3 4.7L-2.3 1L-5.2-1.4L-1.5-1.6Z",
];
// With eight colours used up the next family has the first colour again, with another shape.
const shapeOf = (family) => SHAPES[(family + 3 * Math.floor(family / 8)) % SHAPES.length];
function marker(contender, x, y, scale = 1) {
  const one = data.contenders[contender], color = colorOf(contender);
  const shape = one.family < 0 ? "M-4-4L4 4M4-4L-4 4" : shapeOf(one.family);
  return svg("path", {
    d: shape, transform: `translate(${x.toFixed(2)} ${y.toFixed(2)}) scale(${scale})`, "data-m": contender, stroke: color, "stroke-width": 1.7,
    fill: one.overlay || one.family < 0 ? color : "var(--card)",
  });
}
const swatch = (contender) => svg("svg", { viewBox: "0 0 22 12", "aria-hidden": "true" },
  svg("line", { x1: 0, x2: 22, y1: 6, y2: 6, stroke: colorOf(contender), "stroke-width": 1.8, "stroke-dasharray": dashOf(contender) }),
  marker(contender, 11, 6, 0.85));
const methodName = (contender) => html("span", { class: "method" }, swatch(contender), data.contenders[contender].name);

// Round numbers at or around [low, high], about `wanted` of them.
function ticks(low, high, wanted = 5) {
  const rough = (high - low || 1) / wanted, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough / 1.4);
  const out = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9; i += 1) out.push(Number((i * step).toFixed(6)));
  return out;
}
function range(numbers, margin = 0.06) {
  if (!numbers.length) return [0, 1];
  const low = Math.min(...numbers), high = Math.max(...numbers), pad = Math.max((high - low) * margin, 0.5);
  return [Math.max(low - pad, Math.min(low, 0)), high + pad];
}
const scale = (from, to, low, high) => (one) => from + ((one - low) / (high - low || 1)) * (to - from);

// An SVG with axes: {node, x, y, box}. xs: [[place, label], ...].
function frame({ width, height, xs, xRange, yRange, xName, yName, label, wanted }) {
  const box = { left: yName ? 48 : 34, right: width - 10, top: 8, bottom: height - (xName ? 40 : 24) };
  const x = scale(box.left, box.right, ...xRange), y = scale(box.bottom, box.top, ...yRange);
  const node = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  for (const one of ticks(...yRange, wanted || 5)) {
    node.append(svg("line", { class: "gridline", x1: box.left, x2: box.right, y1: y(one), y2: y(one) }),
      svg("text", { x: box.left - 6, y: y(one) + 4, "text-anchor": "end" }, String(one)));
  }
  for (const [at, text] of xs || ticks(...xRange, wanted || 5).map((one) => [one, String(one)])) {
    if (!xs) node.append(svg("line", { class: "gridline", x1: x(at), x2: x(at), y1: box.top, y2: box.bottom }));
    node.append(svg("text", { x: x(at), y: box.bottom + 16, "text-anchor": "middle" }, text));
  }
  node.append(svg("line", { class: "axis", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }));
  if (xName) node.append(svg("text", { x: (box.left + box.right) / 2, y: height - 5, "text-anchor": "middle" }, xName));
  if (yName) node.append(svg("text", { transform: `translate(11 ${(box.top + box.bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, yName));
  return { node, x, y, box };
}
const figure = (title, remark, ...children) =>
  html("figure", {}, html("figcaption", {}, html("h3", {}, title), remark ? html("span", { class: "remark" }, remark) : null), ...children);

// The box at the pointer: a title and rows of [contender or null, text, text].
const tip = element("tip");
function showTip(event, title, rows) {
  tip.replaceChildren(html("h4", {}, title), html("table", {}, rows.map(([contender, name, text]) => html("tr", {},
    html("td", {}, contender === null ? name : methodName(contender)), html("td", {}, text)))));
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const left = event.clientX + 16 + width > innerWidth ? event.clientX - 16 - width : event.clientX + 16;
  const top = Math.min(Math.max(6, event.clientY - height / 2), innerHeight - height - 6);
  tip.style.left = `${Math.max(6, left)}px`;
  tip.style.top = `${top}px`;
}
const hideTip = () => { tip.hidden = true; };
const hovers = (node, title, rows) => fill(node, {
  onpointermove: (event) => showTip(event, title, typeof rows === "function" ? rows() : rows), onpointerleave: hideTip,
}, []);
// Where the pointer is, in the units of the drawing.
function pointIn(node, event) {
  const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(node.getScreenCTM().inverse());
  return [point.x, point.y];
}
// While a method's chip is pointed at, the others fade.
const focus = document.head.appendChild(html("style"));
const fade = (contender) => { focus.textContent = contender === null ? "" : `figure [data-m]:not([data-m="${contender}"]) { opacity: .1; }`; };
