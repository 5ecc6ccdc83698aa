// Starts the page: data, theme, the view that the address asks for.

// A page that could not be drawn says so instead of staying empty.
function failed(message) {
  const root = document.documentElement;
  root.dataset.errors = String(Number(root.dataset.errors) + 1);
  byId("failed").hidden = false;
  byId("failed").textContent = `This report could not be drawn completely: ${message}`;
}

// #q=dog&sort=worst&theme=dark -> a view; what it does not name, or names wrongly, is the default.
function readAddress(report) {
  const given = new URLSearchParams(location.hash.slice(1)), view = { ...DEFAULTS };
  const allowed = { q: null, sort: Object.keys(ORDERS), set: report.sets.map((set) => set.name), type: report.samples.map((sample) => sample.type),
    grade: GRADES.map((grade) => grade.kind), change: Object.keys(CHANGES) };
  for (const [name, values] of Object.entries(allowed)) if (given.has(name) && (!values || values.includes(given.get(name)))) view[name] = given.get(name);
  return view;
}

function writeAddress(view) {
  const theme = document.documentElement.dataset.theme;
  const entries = Object.entries({ ...view, theme: theme || "" }).filter(([name, value]) => value !== (DEFAULTS[name] || ""));
  history.replaceState(null, "", `#${new URLSearchParams(entries)}`);
}

function readTheme() {
  const theme = new URLSearchParams(location.hash.slice(1)).get("theme");
  if (["light", "dark"].includes(theme)) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  nameTheme();
}

const isDark = () => (document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";

function nameTheme() {
  byId("theme-name").textContent = isDark() ? "Light" : "Dark";
  byId("theme").setAttribute("aria-label", `Switch to the ${isDark() ? "light" : "dark"} theme`);
}

// On paper everything folded is open.
function openForPrint() {
  const folded = [...document.querySelectorAll("details:not([open])")];
  for (const details of folded) details.open = true;
  addEventListener("afterprint", () => folded.forEach((details) => (details.open = false)), { once: true });
}

function start() {
  document.documentElement.dataset.errors = "0";
  addEventListener("error", (event) => failed(event.message));
  addEventListener("securitypolicyviolation", (event) => failed(`${event.violatedDirective} was blocked`));
  readTheme();
  const report = JSON.parse(byId("data").textContent);
  drawHead(report, drawProtocol(report));
  drawPanels(report);
  drawTable(report);
  const samples = new Samples(report, readAddress(report), writeAddress);
  samples.draw();
  byId("metrics").open = report.sets.reduce((sum, set) => sum + set.metrics.length, 0) <= 24;
  addEventListener("hashchange", () => {
    readTheme();
    Object.assign(samples.view, readAddress(report));
    samples.draw();
  });
  byId("theme").addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    nameTheme();
    writeAddress(samples.view);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", nameTheme);
  addEventListener("beforeprint", openForPrint);
  document.documentElement.dataset.ready = "true";
}

start();
