// Tables that can be sorted.

// columns: [{label, cells: [{node, order}], numeric}]; what has no order stays below. Returns the table.
function sortable(columns, rows) {
  const body = html("tbody");
  let sorted = { column: -1, down: true };
  const heads = columns.map((column, i) => html("th", { scope: "col", class: column.place || (column.numeric ? null : "left") }, html("button", { type: "button", onclick: () => sort(i) }, column.label)));
  function sort(i) {
    if (sorted.column !== i) sorted = { column: i, down: columns[i].numeric };
    else if (sorted.down === columns[i].numeric) sorted.down = !sorted.down;
    else sorted = { column: -1, down: true };
    draw();
  }
  function draw() {
    heads.forEach((head, i) => {
      if (i === sorted.column) head.setAttribute("aria-sort", sorted.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    const order = [...Array(rows).keys()];
    if (sorted.column >= 0) {
      const cells = columns[sorted.column].cells, sign = sorted.down ? -1 : 1;
      order.sort((a, b) => {
        const one = cells[a].order, other = cells[b].order;
        if (one === null || other === null) return (one === null) - (other === null);
        return sign * (typeof one === "string" ? one.localeCompare(other) : one - other);
      });
    }
    body.replaceChildren(...order.map((row) => html("tr", {}, columns.map((column) => column.cells[row].node))));
  }
  draw();
  return html("div", { class: "scroll" }, html("table", {}, html("thead", {}, html("tr", {}, heads)), body));
}
const methodCell = (contender) => ({ node: html("td", {}, methodName(contender)), order: data.contenders[contender].name });
const textCell = (text, order, attributes) => ({ node: html("td", attributes || {}, text), order });

// The rows with the best shown mean.
function best(found) {
  const { higher } = data.metrics[state.metric];
  const means = found.filter(measured).map((one) => Number(number(one.mean)));
  if (means.length < 2) return () => false;
  const top = higher ? Math.max(...means) : Math.min(...means);
  return (value) => measured(value) && Number(number(value.mean)) === top;
}
function valueCell(value, isBest, title, expected, contender) {
  if (!measured(value)) {
    const text = value.want === 1 ? "missing" : `missing (${value.have} of ${value.want})`;
    return textCell(text, null, { class: "missing" });
  }
  const few = value.seeds !== null && value.seeds < expected;
  const node = html("td", { class: isBest ? "best" : null }, html("b", {}, number(value.mean)),
    value.deviation === null ? null : html("small", {}, `\u00b1${number(value.deviation)}`), few ? html("sup", {}, `${value.seeds}/${expected}`) : null);
  const rows = value.bySeed.map(([seed, one]) => [null, `seed ${seed}`, one.toFixed(2)]);
  hovers(node, title, [[contender, "", value.mean.toFixed(2)], ...rows, ...(few ? [[null, "seeds", `${value.seeds} of ${expected}`]] : [])]);
  return { node, order: value.mean };
}
function layoutTable(section, layout, rows) {
  const columns = [{ label: "method", numeric: false, cells: rows.map(methodCell) }];
  for (const column of shownColumns(layout.columns)) {
    const found = rows.map((row) => evaluate(row, column)), isBest = best(found);
    const title = `${titleOf(layout)}, ${column.label}`;
    columns.push({
      label: column.label, numeric: true,
      cells: found.map((value, i) => valueCell(value, isBest(value), title, section.seeds, rows[i])),
    });
  }
  return html("div", { class: layout.average && columns.length > 4 && section.layouts.at(-1).columns.length < layout.columns.length ? "card double" : "card", "data-table": layout.title }, html("h3", {}, titleOf(layout)), sortable(columns, rows.length));
}

const SIGNS = { better: "\u25b2", worse: "\u25bc", same: "=", "cannot tell": "?" };
// Differences with their intervals: overlays against their hosts, starts against starts, everything against zero-shot.
// Those of averages were computed over all data sets, whatever is shown.
function differenceTables(section, chosen, choose) {
  const pairs = data.differences.filter((one) => one.section === section.title && state.methods.has(one.first) && state.methods.has(one.second));
  const zero = (one) => data.contenders[one.first].seedless;
  return [["With against without: overlays, pretrained starts", pairs.filter((one) => !zero(one))], ["Against zero-shot", pairs.filter(zero)]]
    .filter(([, some]) => some.length).map(([title, some], i) => differenceTable(title, some, chosen, i ? null : choose)).filter(Boolean);
}
function differenceTable(title, pairs, chosen, choose) {
  const single = (one) => one.found.filter((some) => some.datasets.length === 1);
  const names = [...new Set(pairs.flatMap((one) => single(one).map((some) => some.datasets[0])))];
  const pick = (one) => (chosen ? single(one).find((some) => some.datasets[0] === chosen) : one.found.find((some) => some.datasets.length === one.wanted));
  const rows = pairs.map((pair) => ({ pair, said: pick(pair) })).filter((row) => row.said);
  const menu = choose && names.length > 1 ? html("select", { "aria-label": "Data set of the differences", onchange: (event) => choose(event.target.value) },
    ["", ...names.filter((name) => state.sets.has(name))].map((name) => html("option", { value: name, selected: name === chosen }, name || "average over all data sets"))) : null;
  const head = html("div", { class: "head" }, html("h3", {}, title), html("span", { class: "remark" },
    `top-1 points, ${chosen || (names.length > 1 ? "average of all data sets" : names[0])}; shaded: the margin of ${data.margin} points`), menu);
  if (!rows.length) return menu ? html("div", { class: "card wide" }, head, html("p", { class: "empty remark" }, "No pair has every data set.")) : null;
  const reach = Math.ceil(Math.max(2, ...rows.map(({ said }) => Math.abs(said.difference) * 1.3), ...rows.flatMap(({ said }) => [said.low, said.high]).map((one) => Math.min(Math.abs(one), 40))));
  const words = (label, cells) => ({ label, numeric: false, cells });
  const numbers = (label, text, order) => ({ label, numeric: true, cells: rows.map(({ said }) => textCell(text(said), order(said))) });
  const name = (contender) => ({ node: html("td", { class: "left" }, methodName(contender)), order: data.contenders[contender].name });
  const needed = (said) => (said.verdict !== "cannot tell" ? "\u2013" : said.needed !== null ? String(said.needed) : said.known ? "more images" : "3 or more");
  return html("div", { class: "card wide" }, head, sortable([
    words("method", rows.map(({ pair }) => methodCell(pair.second))),
    words("against", rows.map(({ pair }) => name(pair.first))),
    ...(rows.some(({ pair }) => pair.title) ? [words("on", rows.map(({ pair }) => textCell(chosen || pair.wanted === 1 ? pair.title : `${pair.title}, ${pair.wanted} sets`, pair.title, { class: "left" })))] : []),
    { label: `\u2212${reach} to +${reach}`, numeric: true, place: "middle", cells: rows.map(({ pair, said }) => ({ node: html("td", { class: "middle" }, interval(said, reach, pair)), order: said.difference })) },
    numbers("gain", (said) => signed(said.difference), (said) => said.difference),
    numbers(`${Math.round(100 * data.level)} % interval`, (said) => `${signed(said.low)} to ${signed(said.high)}`, (said) => said.low),
    words("verdict", rows.map(({ said }) => textCell(verdict(said), said.verdict, { class: "left" }))),
    numbers("seeds needed", needed, (said) => (said.verdict === "cannot tell" ? said.needed : null)),
  ], rows.length));
}
const verdict = (said) => html("span", { class: `verdict ${said.verdict.split(" ")[0]}` }, html("span", { "aria-hidden": "true" }, SIGNS[said.verdict]), said.verdict);
function interval(said, reach, pair) {
  const x = scale(4, 256, -reach, reach), clip = (one) => x(Math.max(-reach, Math.min(reach, one)));
  const color = { better: "var(--better)", worse: "var(--worse)" }[said.verdict] || "var(--faint)";
  const node = svg("svg", { class: "interval", viewBox: "0 0 260 20", role: "img", "aria-label": `${signed(said.low)} to ${signed(said.high)}` },
    svg("rect", { x: x(-data.margin), width: x(data.margin) - x(-data.margin), y: 0, height: 20, fill: "var(--grid)" }),
    svg("line", { class: "axis", x1: x(0), x2: x(0), y1: 0, y2: 20 }),
    svg("line", { x1: clip(said.low), x2: clip(said.high), y1: 10, y2: 10, stroke: color, "stroke-width": 2, "stroke-linecap": "round" }),
    svg("circle", { cx: clip(said.difference), cy: 10, r: 4, fill: color }));
  return hovers(node, said.datasets.length > 1 ? `average of ${said.datasets.length} data sets` : said.datasets[0], [
    [pair.second, "", signed(said.difference)], [null, "95 % interval", `${signed(said.low)} to ${signed(said.high)}`],
    [null, "seeds", said.seeds ? String(said.seeds) : "none involved"], [null, "images", count(said.images)],
  ]);
}
function costTable() {
  const rows = data.costs.filter((one) => state.methods.has(one.contender));
  const column = (label, name, text) => ({ label, numeric: true, cells: rows.map((one) => textCell(text(one[name]), one[name])) });
  const decimal = (one) => (one === null ? "\u2013" : one < 100 ? one.toFixed(1) : count(one));
  return html("div", { class: "card wide" }, sortable([
    { label: "method", numeric: false, cells: rows.map((one) => methodCell(one.contender)) },
    { label: "shots", numeric: true, cells: rows.map((one) => textCell(data.contenders[one.contender].seedless ? "\u2013" : one.shots === null ? "all" : String(one.shots), one.shots)) },
    column("runs", "runs", count), column("learned numbers", "parameters", count), column("epochs", "epochs", count),
    column("seconds", "seconds", decimal), column("of them for images", "seconds_features", decimal), column("peak MiB", "peak_mib", count),
  ], rows.length));
}
