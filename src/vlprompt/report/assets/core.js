// The numbers, what is chosen, and what a column comes to. The same arithmetic as grid.py.
const data = JSON.parse(document.getElementById("data").textContent);
const ANY = -1;

const values = new Map();
for (const [contender, place, seeds, ...tables] of data.values) {
  tables.forEach((numbers, metric) => {
    const found = new Map();
    numbers.forEach((one, i) => { if (one !== null) found.set(seeds[i], one); });
    if (found.size) values.set(`${contender} ${place} ${metric}`, found);
  });
}
const allSets = [...new Set(data.places.map((place) => place.dataset))];
const narrow = matchMedia("(max-width: 680px)");
const state = { methods: new Set(data.contenders.keys()), sets: new Set(allSets), metric: 0 };

const mean = (numbers) => numbers.reduce((a, b) => a + b, 0) / numbers.length;
const deviation = (numbers) => {
  const middle = mean(numbers);
  return Math.sqrt(numbers.reduce((sum, one) => sum + (one - middle) ** 2, 0) / (numbers.length - 1));
};
const harmonic = (base, novel) => (base + novel ? (2 * base * novel) / (base + novel) : 0);
// One decimal, halves up: toFixed alone and Python round differently.
const number = (one) => (Math.floor(one * 10 + 0.5) / 10).toFixed(1);
const signed = (one) => (number(one).startsWith("-") ? number(one).replace("-", "\u2212") : `+${number(one)}`);
const count = (one) => (one === null ? "\u2013" : Math.round(one).toLocaleString("en"));

function combine(kind, numbers) {
  if (kind === "mean") return mean(numbers);
  const half = numbers.length / 2;
  const base = numbers.slice(0, half), novel = numbers.slice(half);
  if (kind === "harmonic") return harmonic(mean(base), mean(novel));
  return mean(base.map((one, i) => harmonic(one, novel[i])));
}

// {mean, deviation, seeds, bySeed}, {have, want} where something is missing, or null where nothing of the column is shown.
function evaluate(contender, column, metric = state.metric) {
  const kept = [...column.places.keys()].filter((i) => state.sets.has(column.datasets[i]));
  if (!kept.length) return null;
  const wanted = kept.map((i) => column.places[i]);
  if (column.others.length) wanted.push(...kept.map((i) => column.others[i]));
  const there = wanted.map((place) => values.get(`${contender} ${place} ${metric}`)).filter(Boolean);
  if (there.length < wanted.length) return { have: there.length, want: wanted.length };
  const learned = there.filter((one) => !one.has(ANY));
  const common = learned.length ? [...learned[0].keys()].filter((seed) => learned.every((one) => one.has(seed))) : [];
  const bySeed = common.map((seed) => combine(column.kind, there.map((one) => one.get(one.has(ANY) ? ANY : seed))));
  return {
    mean: combine(column.kind, there.map((one) => mean([...one.values()]))),
    deviation: bySeed.length > 1 ? deviation(bySeed) : null,
    seeds: learned.length ? common.length : null,
    bySeed: common.map((seed, i) => [seed, bySeed[i]]),
  };
}
const measured = (value) => value !== null && value !== undefined && "mean" in value;
const shownColumns = (columns) => columns.filter((column) =>
  column.datasets.some((name) => state.sets.has(name)) && (column.kind === "mean" || data.metrics[state.metric].higher));
const shownRows = (section) => section.rows.filter((row) => state.methods.has(row));
const shownLayouts = (section) => section.layouts.filter((layout) => {
  const sets = shownSets(layout.columns);
  return sets.length > (layout.average ? 1 : 0);
});
const shownSets = (columns) => [...new Set(columns.flatMap((column) => column.datasets))].filter((name) => state.sets.has(name));
const titleOf = (layout) => {
  if (!layout.average) return layout.title;
  const all = new Set(layout.columns.flatMap((column) => column.datasets)).size, now = shownSets(layout.columns).length;
  return now < all ? `Average of ${now} of ${all} data sets` : layout.title;
};
const valueText = (value) => !measured(value) ? "missing" :
  number(value.mean) + (value.deviation === null ? "" : ` \u00b1 ${number(value.deviation)}`);

// HTML and SVG elements; text is always set as text.
function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat()) if (child !== null && child !== undefined) node.append(child);
  return node;
}
const html = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
const short = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}\u2026` : text);
// The first panel is large where it is the average of many, or alone.
const largeFirst = (layouts) => (layouts.length > 3 || layouts.length === 1) && !narrow.matches;
const element = (id) => document.getElementById(id);
