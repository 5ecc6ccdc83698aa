// One card a sample.

const GRADES = [
  { verdict: "Wrong", third: "Low", sign: "✗", thirdSign: "▼", kind: "wrong" },
  { verdict: "Partly", third: "Middle", sign: "~", thirdSign: "●", kind: "partly" },
  { verdict: "Correct", third: "High", sign: "✓", thirdSign: "▲", kind: "correct" },
];

function card(sample, report) {
  const set = report.sets.find((one) => one.name === sample.set), names = runNames(report);
  const grade = GRADES[sample.grade], [headline] = Object.keys(sample.scores);
  const meaning = set.verdict ? grade.verdict : `${grade.third} third of ${set.name}`;
  const stage = known(sample.picture) ? pictureStage(sample, report.pictures[sample.picture]) : null;
  return el("article", { class: "card" },
    el("header", {}, el("span", { class: "id", title: `${sample.set} · ${sample.id}`, dir: "auto" }, sample.id),
      report.sets.length > 1 ? el("span", { class: "tag", dir: "auto" }, sample.set) : null,
      sample.type ? el("span", { class: "tag", dir: "auto" }, sample.type) : null,
      el("span", { class: `pill ${grade.kind}`, title: `${meaning}: ${headline}` }, el("span", { "aria-hidden": "true" }, set.verdict ? grade.sign : grade.thirdSign),
        el("span", { class: "hidden" }, meaning), ` ${number(headlineScore(sample), 2)}`)),
    stage ? stage.node : el("p", { class: "no-picture soft" }, "no picture"),
    sample.prompt ? words("p", "prompt", sample.prompt) : null,
    stage && sample.attention ? attentionChips(sample.attention, stage.canvas, stage.node) : null,
    el("div", { class: "words" },
      el("dl", {}, ...answer(names.model, sample.prediction, headlineScore(sample), "own"), ...(known(sample.other) ? answer(names.other, sample.other, sample.other_score, "other", sample.prediction) : []),
        ...(known(sample.twin) ? answer(names.twin, sample.twin, sample.twin_score, "twin", sample.prediction) : []), ...references(sample.references))),
    el("footer", {}, ...Object.entries(sample.scores).map(([metric, value]) => el("span", {}, `${metric} `, el("b", {}, number(value, 2))))));
}

// The picture in its own shape; a canvas of the same place and size lies over it. Small ones grow by whole pixels.
function pictureStage(sample, picture) {
  const image = el("img", { src: picture.uri, alt: `Picture of sample ${sample.id}`, width: picture.width, height: picture.height, class: picture.pixels ? "pixels" : null, decoding: "async" });
  const canvas = el("canvas", { "aria-hidden": "true" });
  const box = el("div", { class: "picture", vars: { "--ratio": String(picture.width / picture.height) } }, image, canvas);
  return { node: el("div", { class: "stage" }, box), canvas };
}

// Text of a model or a person: as it is, in its own direction, long ones in a box that scrolls.
function words(tag, kind, text) {
  const long = text.length > 600;
  return el(tag, { class: `${kind}${long ? " long" : ""}`, dir: "auto", tabindex: long ? "0" : null }, text);
}

function answer(name, text, score, kind, compared) {
  const shown = text === "" ? el("span", { class: "empty" }, "empty") : words("span", "text", text);
  if (known(compared) && compared === text) shown.append(el("span", { class: "tag" }, "same"));
  return [el("dt", {}, name), el("dd", { class: `said ${kind}` }, shown, known(score) ? el("span", { class: "score" }, number(score, 2)) : null)];
}

// Equal references are one line with their number; beyond three lines the rest is folded.
function references(texts) {
  if (!texts.length) return [];
  const times = new Map();
  for (const text of texts) times.set(text, (times.get(text) || 0) + 1);
  const items = [...times].sort((a, b) => b[1] - a[1]).map(([text, n]) => el("li", { dir: "auto" }, text || el("span", { class: "empty" }, "empty"), n > 1 ? el("span", { class: "times" }, ` ×${n}`) : null));
  const rest = items.splice(items.length > 4 ? 3 : 4);
  return [el("dt", {}, "References"), el("dd", { class: "truth" }, el("ul", {}, ...items),
    rest.length ? el("details", {}, el("summary", {}, `${rest.length} more`), el("ul", {}, ...rest)) : null)];
}
