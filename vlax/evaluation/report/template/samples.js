// Filters, order and the growing list of cards.

const AT_ONCE = 24;
const gap = (a, b) => (known(b) ? Math.abs(a - b) : -1);

const ORDERS = {
  original: { name: "Original", key: null },
  worst: { name: "Worst first", key: headlineScore },
  best: { name: "Best first", key: (sample) => -headlineScore(sample) },
  twin: { name: "Differs from twin", key: (sample) => -gap(headlineScore(sample), sample.twin_score) },
  other: { name: "Differs from B", key: (sample) => -gap(headlineScore(sample), sample.other_score) },
};
const CHANGES = { better: ["A better", (d) => d > 1e-9], worse: ["A worse", (d) => d < -1e-9], same: ["Same score", (d) => Math.abs(d) <= 1e-9] };
const DEFAULTS = { q: "", sort: "original", set: "", type: "", grade: "", change: "" };

// What the search looks through: prompt, prediction, references and id.
function searchable(sample) {
  return [sample.id, sample.prompt, sample.prediction, ...sample.references].join("\n").toLowerCase();
}

// Samples that pass all filters of `view`; without the filter named `but`, for the numbers on that filter's buttons.
function matching(report, view, but) {
  const on = (name) => name !== but && view[name] !== "";
  const terms = view.q.toLowerCase().split(/\s+/).filter(Boolean);
  return report.samples.filter((sample) => terms.every((term) => sample.searchable.includes(term))
    && (!on("set") || sample.set === view.set) && (!on("type") || sample.type === view.type) && (!on("grade") || GRADES[sample.grade].kind === view.grade)
    && (!on("change") || (known(sample.other_score) && CHANGES[view.change][1](headlineScore(sample) - sample.other_score))));
}

// Sorted by the order's key; equal keys stay in the original order. Scores can only be compared within a set, so sets take turns.
function ordered(report, samples, order) {
  const key = ORDERS[order].key;
  if (!key) return samples;
  const queues = report.sets.map((set) => samples.filter((sample) => sample.set === set.name).map((sample) => [key(sample), sample]).sort((a, b) => a[0] - b[0]));
  return Array.from({ length: Math.max(0, ...queues.map((queue) => queue.length)) }, (_, turn) => queues.filter((queue) => turn < queue.length).map((queue) => queue[turn][1])).flat();
}

class Samples {
  constructor(report, view, changed) {
    Object.assign(this, { report, view, changed, shown: 0, found: [] });
    for (const sample of report.samples) sample.searchable = searchable(sample);
    this.makeControls();
    byId("toolbar").hidden = !report.samples.length;
    byId("attention-help").hidden = !report.samples.some((sample) => sample.attention);
  }

  makeControls() {
    const { report } = this, some = (field) => report.samples.some((sample) => known(sample[field]));
    const types = [...new Set(report.samples.map((sample) => sample.type).filter(Boolean))].sort();
    this.options("set", report.sets.map((set) => [set.name, set.name]), "All sets");
    this.options("type", types.map((type) => [type, type]), "All types");
    this.options("change", some("other_score") ? Object.entries(CHANGES).map(([key, [name]]) => [key, name]) : [], "All");
    const offered = Object.entries(ORDERS).filter(([key]) => (key !== "twin" || some("twin_score")) && (key !== "other" || some("other_score")));
    this.segments("sort", offered.map(([key, order]) => [key, order.name]));
    this.segments("grade", [["", "All"], ...[...GRADES].reverse().map((grade) => [grade.kind, ""])]);
    byId("toolbar").addEventListener("submit", (event) => event.preventDefault());
    byId("q").addEventListener("input", () => {
      clearTimeout(this.typing);
      this.typing = setTimeout(() => this.set({ q: byId("q").value }), 120);
    });
    byId("clear").addEventListener("click", () => this.set({ ...DEFAULTS, sort: this.view.sort }));
  }

  // "Correct" where there is right and wrong, "High" where there are thirds; both while sets of both kinds are chosen.
  gradeName(grade) {
    const verdicts = this.report.sets.filter((set) => !this.view.set || set.name === this.view.set).map((set) => set.verdict);
    return [verdicts.includes(true) ? grade.verdict : null, verdicts.includes(false) ? grade.third : null].filter(Boolean).join(" / ");
  }

  // A list to choose from; left out where there is nothing to choose.
  options(name, choices, all) {
    byId(`${name}-label`).hidden = choices.length < 2;
    byId(name).append(el("option", { value: "" }, all), ...choices.map(([value, text]) => el("option", { value }, text)));
    byId(name).addEventListener("change", () => this.set({ [name]: byId(name).value }));
  }

  segments(name, choices) {
    byId(name).append(...choices.map(([value, text]) => el("label", {},
      el("input", { type: "radio", name, value, onchange: () => this.set({ [name]: value }) }), el("span", {}, el("span", { class: "choice" }, text), name === "grade" ? el("small") : null))));
  }

  set(change) {
    Object.assign(this.view, change);
    this.changed(this.view);
    this.draw();
  }

  // All that depends on the view, from the first card on.
  draw() {
    const { report, view } = this;
    this.found = ordered(report, matching(report, view), view.sort);
    this.shown = 0;
    if (byId("q").value !== view.q) byId("q").value = view.q;
    for (const name of ["set", "type", "change"]) byId(name).value = view[name];
    for (const name of ["sort", "grade"]) for (const input of byId(name).querySelectorAll("input")) input.checked = input.value === view[name];
    const others = matching(report, view, "grade");
    for (const label of byId("grade").querySelectorAll("label")) {
      const grade = GRADES.find((one) => one.kind === label.querySelector("input").value);
      if (grade) label.querySelector(".choice").textContent = this.gradeName(grade);
      label.querySelector("small").textContent = others.filter((sample) => !grade || GRADES[sample.grade] === grade).length;
    }
    byId("cards").replaceChildren(...(this.found.length ? [] : [el("p", { class: "nothing" }, report.samples.length ? "No sample matches these filters." : "This report has no samples.")]));
    this.grow(AT_ONCE);
  }

  grow(number) {
    const next = this.found.slice(this.shown, this.shown + number);
    const cards = next.map((sample) => card(sample, this.report));
    byId("cards").append(...cards);
    const first = this.shown ? cards[0] : null;
    this.shown += next.length;
    const left = this.found.length - this.shown;
    const button = (text, n) => el("button", { type: "button", class: "wide", onclick: () => this.grow(n) }, text);
    byId("more").replaceChildren(...(left ? [button(`Show ${Math.min(AT_ONCE, left)} more`, AT_ONCE)] : []), ...(left > AT_ONCE ? [button(`Show all ${this.found.length}`, left)] : []));
    if (first) {  // the button is gone: whoever uses the keyboard goes on at the first new card
      first.tabIndex = -1;
      first.focus({ preventScroll: true });
    }
    this.tell();
  }

  tell() {
    const { found, shown, report, view } = this;
    const filtered = Object.keys(DEFAULTS).some((name) => name !== "sort" && view[name] !== "");
    byId("clear").hidden = !filtered;
    const sets = new Set(found.map((sample) => sample.set));
    const mean = (scores) => scores.reduce((sum, score) => sum + score, 0) / scores.length;
    const parts = [el("b", {}, found.length ? `${shown} of ${found.length}` : "0"), ` ${found.length === 1 ? "sample" : "samples"}${filtered ? ` that match, ${report.samples.length} in all` : ""}`];
    if (sets.size === 1) {
      const twins = found.map((sample) => sample.twin_score).filter(known);
      parts.push(el("span", { class: "soft" }, ` · mean ${Object.keys(found[0].scores)[0]} of ${shown < found.length ? `all ${found.length}` : found.length === 1 ? "it" : `these ${found.length}`}: ${number(mean(found.map(headlineScore)), 2)}${twins.length === found.length ? `, blind twin ${number(mean(twins), 2)}` : ""}`));
    }
    else if (sets.size > 1 && view.sort !== "original") parts.push(el("span", { class: "soft" }, " · sets take turns"));
    byId("count").replaceChildren(...parts);
  }
}
