// How the scores were made: the protocol's tree as rows, a second run's beside it, and what stands above the scores.

// {"a": {"b": [1, 2]}, "c": {}} -> [["a.b", "1, 2"], ["c", "{}"]]
function flatten(tree, prefix) {
  return Object.entries(tree).flatMap(([key, value]) => {
    const name = prefix ? `${prefix}.${key}` : key;
    if (value && typeof value === "object" && !Array.isArray(value) && Object.keys(value).length) return flatten(value, name);
    if (Array.isArray(value) && value.length && value.some((item) => item && typeof item === "object"))
      return value.flatMap((item, i) => (item && typeof item === "object" ? flatten(item, `${name}.${i}`) : [[`${name}.${i}`, JSON.stringify(item)]]));
    if (Array.isArray(value)) return [[name, value.length ? value.join(", ") : "[]"]];
    return [[name, typeof value === "string" ? value || "“”" : JSON.stringify(value)]];
  });
}

function drawProtocol(report) {
  const mine = new Map(flatten(report.protocol, "")), theirs = report.other ? new Map(flatten(report.other.protocol, "")) : null;
  const keys = [...new Set([...mine.keys(), ...(theirs ? theirs.keys() : [])])];
  const differ = theirs ? keys.filter((key) => mine.get(key) !== theirs.get(key)) : [];
  const heads = theirs ? ["Setting", "Run A", "Run B"] : ["Setting", "Value"];
  const cell = (value) => el("td", {}, known(value) ? el("code", { dir: "auto" }, value) : el("span", { class: "soft" }, "–"));
  const rows = keys.map((key) => el("tr", { class: differ.includes(key) ? "differs" : null },
    el("th", { scope: "row" }, key, differ.includes(key) ? el("span", { class: "tag" }, "differs") : null), cell(mine.get(key)), theirs ? cell(theirs.get(key)) : null));
  byId("protocol-table").append(el("table", { class: "protocol" }, el("thead", {}, el("tr", {}, ...heads.map((head) => el("th", { scope: "col" }, head)))), el("tbody", {}, ...rows)));
  byId("protocol-count").textContent = theirs ? `${count(keys.length, "setting")}, ${differ.length} differ` : count(keys.length, "setting");
  byId("protocol-hint").textContent = "Scores of a set can be compared where the hash of its protocol is the same.";
  return differ;
}

// {"captions": "eef7b522"}: the protocol of each set by its hash, as the terminal names it.
const hashes = (protocol) => Object.fromEntries(Object.entries(protocol.sets || {}).map(([name, one]) => [name, one.hash]).filter(([, hash]) => known(hash)));

function drawHead(report, differ) {
  const facts = byId("facts"), mine = hashes(report.protocol), theirs = report.other ? hashes(report.other.protocol) : {};
  const several = report.sets.length > 1, marks = Object.entries(mine).filter(([name]) => report.sets.some((set) => set.name === name));
  if (marks.length) facts.append(el("li", { id: "hash" }, marks.length > 1 ? "protocols " : "protocol ", el("a", { href: "#protocol", id: "to-protocol" },
    ...marks.flatMap(([name, hash], i) => [i ? ", " : null, el("code", {}, hash), several ? ` of ${name}` : null]))));
  const rows = report.sets.reduce((sum, set) => sum + (set.rows || 0), 0);
  facts.append(el("li", {}, `${count(rows, "row")} in ${count(report.sets.length, "set")}`), el("li", {}, el("a", { href: "#samples", id: "to-samples" }, count(report.samples.length, "sample")), " to look at"));
  if (report.other) facts.append(el("li", { class: "runs" }, el("b", { class: "a" }, "A"), "this run", el("b", { class: "b" }, "B"), el("span", { dir: "auto" }, report.other.title)));
  const notes = report.notes.map((note) => el("p", { class: "note", dir: "auto" }, note));
  const others = marks.filter(([name, hash]) => known(theirs[name]) && theirs[name] !== hash);
  if (others.length) notes.unshift(el("p", { class: "note bad" },
    `Run B was made under another protocol (${others.map(([name]) => (several ? `${theirs[name]} of ${name}` : theirs[name])).join(", ")}; ${count(differ.length, "setting")} differ), so differences between the runs are not differences between the models alone.`));
  byId("notes").append(...notes);
  drawAbout(report);
  jump("to-samples", "samples", "#q");
  if (marks.length) jump("to-protocol", "protocol", "summary");
}

// Which model, stage, checkpoint, data, command, ... this is about; with a second run, of both.
function drawAbout(report) {
  const mine = report.about || {}, theirs = (report.other && report.other.about) || null, both = theirs && Object.keys(theirs).length > 0;
  const keys = [...new Set([...Object.keys(mine), ...(both ? Object.keys(theirs) : [])])];
  if (!keys.length) return;
  const cell = (value) => el("td", { dir: "auto" }, known(value) ? value : el("span", { class: "soft" }, "–"));
  const lines = keys.map((key) => el("tr", { class: both && mine[key] !== theirs[key] ? "differs" : null },
    el("th", { scope: "row" }, key), cell(mine[key]), both ? cell(theirs[key]) : null));
  byId("about-table").append(el("table", { class: "protocol" }, both ? el("thead", {}, el("tr", {}, ...["", "Run A", "Run B"].map((head) => el("th", { scope: "col" }, head)))) : null, el("tbody", {}, ...lines)));
  byId("about").hidden = false;
}

// A link inside the page that leaves the address alone, which is for filters.
function jump(link, block, focused) {
  byId(link).addEventListener("click", (event) => {
    event.preventDefault();
    if ("open" in byId(block)) byId(block).open = true;
    byId(block).scrollIntoView();
    byId(block).querySelector(focused).focus({ preventScroll: true });
  });
}
