// Score panels with bars and histograms, and the table of all metrics.

function drawPanels(report) {
  const names = runNames(report);
  byId("panels").append(...report.sets.map((set) => panel(set, report, names)));
}

// What the rows of a panel are called. With a second run the two are A and B.
function runNames(report) {
  const shorts = { twin: "twin", prior: "prior", other: "B" };
  return { model: report.other ? "Run A" : "Model", short: report.other ? "A" : "model", twin: "Blind twin", prior: "Prior", other: "Run B", shorts };
}

function panel(set, report, names) {
  const metric = set.metrics.find((one) => one.name === set.headline);
  const samples = report.samples.filter((sample) => sample.set === set.name);
  return el("article", { class: "panel" },
    el("header", {}, el("h3", { dir: "auto" }, set.name), known(set.rows) ? el("span", { class: "soft" }, count(set.rows, "row")) : null),
    el("div", { class: "halves" },
      el("div", { class: "half-score" },
        el("p", { class: "metric" }, metric.name),
        el("p", { class: "big" }, number(metric.score, 3), metric.interval ? el("span", { class: "interval" }, range(metric.interval)) : null),
        bars(metric, names),
        metric.formula ? el("details", { class: "formula" }, el("summary", {}, `What is ${metric.name}?`), el("p", {}, metric.formula)) : null),
      samples.length ? histogram(set, samples, names) : null));
}

// One bar for each of model, twin, prior and second run on a common axis; the model's with its interval.
function bars(metric, names) {
  const rows = [["model", metric.score, metric.interval, null], ["twin", metric.twin, null, metric.over_twin],
    ["prior", metric.prior, null, metric.over_prior], ["other", metric.other, null, metric.over_other]].filter(([, value]) => known(value));
  const values = rows.map(([, value]) => value).concat(metric.interval || []);
  const low = Math.min(0, ...values), end = Math.max(...values);
  const high = end <= 1 && end > 0.3 ? 1 : niceEnd(end);
  const at = (value) => `${(100 * (value - low)) / (high - low || 1)}%`;
  const lines = rows.map(([kind, value, interval, over]) => el("div", { class: `bar ${kind}` },
    el("span", { class: "name" }, names[kind]),
    el("span", { class: "track", "aria-hidden": "true" }, el("span", { class: "fill", vars: { "--from": at(Math.min(0, value)), "--to": at(Math.max(0, value)) } }),
      interval ? el("span", { class: "whisker", vars: { "--from": at(interval[1]), "--to": at(interval[2]) } }) : null),
    el("span", { class: "value" }, number(value, 3)),
    over ? el("span", { class: "over" }, el("span", { class: "soft" }, `${names.short} − ${names.shorts[kind]} `), difference(over)) : null));
  return el("div", { class: "bars" }, ...lines,
    el("div", { class: "axis", "aria-hidden": "true" }, el("span", {}, number(low, low % 1 ? 2 : 0)), el("span", {}, `${+high.toFixed(4)}`)));
}

// How the headline's scores are spread over the samples; the twin's beside them. A bar a value where there are few values, else twelve bins.
function histogram(set, samples, names) {
  const own = samples.map(headlineScore);
  const twins = samples.map((sample) => sample.twin_score).filter(known);
  const all = own.concat(twins);
  const values = [...new Set(all.map((value) => value.toFixed(2)))].map(Number).sort((a, b) => a - b);
  const single = values.length <= 6;
  const low = Math.min(0, ...all), high = set.verdict ? 1 : niceEnd(Math.max(...all));
  const bins = single ? values.length : 12;
  const place = (value) => (single ? values.indexOf(Number(value.toFixed(2))) : Math.min(bins - 1, Math.floor(((value - low) / (high - low)) * bins)));
  const tally = (scores) => scores.reduce((sums, value) => (sums[place(value)]++, sums), new Array(bins).fill(0));
  const [mine, theirs] = [tally(own), tally(twins)];
  const most = Math.max(...mine, ...theirs);
  const edge = (bin) => low + ((high - low) * bin) / bins;
  const label = (bin) => (single ? number(values[bin], 2) : `${number(edge(bin), 2)} to ${number(edge(bin + 1), 2)}`);
  const column = (bin) => el("div", { class: "bin", title: `${label(bin)}: ${names.model} ${mine[bin]}${twins.length ? `, blind twin ${theirs[bin]}` : ""}` },
    el("span", { class: "stick model", vars: { "--to": `${(100 * mine[bin]) / most}%` } }),
    twins.length ? el("span", { class: "stick twin", vars: { "--to": `${(100 * theirs[bin]) / most}%` } }) : null);
  const described = mine.map((n, bin) => `${label(bin)}: ${n}`).join("; ");
  const ticks = single ? values.map((value) => number(value, 2)) : [low, (low + high) / 2, high].map((value) => `${+value.toFixed(2)}`);
  // Samples may be chosen for what they show, so that their spread need not be that of all rows: the caption says what is counted.
  const counted = known(set.rows) && samples.length < set.rows ? `${set.headline} of the ${count(samples.length, "sample")} below` : `${set.headline} by sample`;
  return el("figure", { class: "histogram" },
    el("figcaption", {}, counted, el("span", { class: "key" },
      el("i", { class: "model" }), names.model, twins.length ? el("i", { class: "twin" }) : null, twins.length ? names.twin : null)),
    el("div", { class: `bins${single ? " single" : ""}`, role: "img", "aria-label": `Samples by ${set.headline}. ${described}` }, el("span", { class: "most soft" }, count(most, "sample")), ...mine.map((_, bin) => column(bin))),
    el("div", { class: `ticks${single ? " single" : ""}`, "aria-hidden": "true" }, ...ticks.map((tick) => el("span", {}, tick))));
}

function drawTable(report) {
  const heads = ["Metric", "Score", "95 % interval", "Blind twin", "Prior", "Score − twin", "Score − prior"].concat(report.other ? ["Run B", "A − B"] : []);
  const bodies = report.sets.map((set) => el("tbody", {},
    el("tr", { class: "group" }, el("th", { colspan: heads.length, scope: "rowgroup" }, el("span", {}, el("bdi", {}, set.name), known(set.rows) ? el("span", { class: "soft" }, count(set.rows, "row")) : null))),
    ...set.metrics.flatMap((metric) => tableRows(metric, heads, report.other))));
  byId("table").append(el("table", { class: `metrics${report.other ? " compared" : ""}` }, el("thead", {}, el("tr", {}, ...heads.map((head) => el("th", { scope: "col" }, head)))), ...bodies));
  byId("metrics-hint").hidden = !report.sets.some((set) => set.metrics.some((metric) => metric.formula));
  byId("metrics-count").textContent = count(report.sets.reduce((sum, set) => sum + set.metrics.length, 0), "metric");
}

// The row of a metric and, below it, its formula, which its name opens.
function tableRows(metric, heads, other) {
  const opened = el("tr", { class: "opened", hidden: true }, el("td", { colspan: heads.length }, el("p", {}, metric.formula)));
  const toggle = (event) => {
    opened.hidden = !opened.hidden;
    event.currentTarget.setAttribute("aria-expanded", String(!opened.hidden));
  };
  const name = metric.formula ? el("button", { type: "button", class: "metric-name", title: metric.formula, "aria-expanded": "false", onclick: toggle }, metric.name)
    : el("span", { class: "metric-name" }, metric.name);
  const cells = [el("b", {}, number(metric.score, 3)), metric.interval ? range(metric.interval) : "–", number(metric.twin, 3), number(metric.prior, 3),
    difference(metric.over_twin), difference(metric.over_prior)].concat(other ? [number(metric.other, 3), difference(metric.over_other)] : []);
  const row = el("tr", {}, el("th", { scope: "row" }, name), ...cells.map((cell, i) => el("td", { "data-head": heads[i + 1], class: cell === "–" || cell.textContent === "–" ? "none" : null }, cell)));
  return metric.formula ? [row, opened] : [row];
}
