// The page of `vlax serve`: one picture, one or two models, a conversation. It asks the endpoint that everybody asks.
// base.js and attention.js are the report's: el, byId, percent, count; unpackAttention, meanGrid, paint, placeOf.
"use strict";

const state = { models: new Map(), chosen: [], picture: null, turns: [], running: new Set(), length: 64, kept: null };
const LETTERS = ["A", "B"];
const WHOLE = -1;  // in place of a token's number: the mean over all
const SMALL = 96;  // pictures up to this long side are shown with their pixels
const PATIENCE = 2500;  // milliseconds after which a first answer says that it compiles

const error = (text, again) => {
  byId("notice").replaceChildren(text, again ? el("button", { type: "button", class: "link", onclick: () => { quiet(); again(); } }, "Try again") : "");
  byId("notice").hidden = false;
};
const quiet = () => { byId("notice").hidden = true; };
const say = (text) => { byId("spoken").textContent = text; };
const shown = () => state.chosen.map((name) => state.models.get(name));

// ---- Models

async function load() {
  try {
    const response = await fetch("/api/models");
    if (!response.ok) throw new Error(`${response.status}`);
    const about = await response.json();
    state.length = about.length;
    for (const model of about.models) state.models.set(model.name, model);
  } catch {
    byId("empty").replaceChildren(el("p", {}, "The models could not be loaded."));
    error("The server does not answer. Is vlax serve still running? ", load);
    return;
  }
  choose([...state.models.keys()].slice(0, 2));
  fillSettings();
  for (const id of ["text", "caption", "send"]) byId(id).disabled = false;
  drawTurns();
  loadSamples();
  document.documentElement.dataset.ready = "true";
}

function choose(names) {
  const changed = names.join("\n") !== state.chosen.join("\n");
  state.chosen = names;
  document.body.classList.toggle("compare", names.length > 1);
  const options = (selected) => [...state.models.keys()].map((name) => el("option", { value: name, selected: name === selected }, name));
  const picker = (name, at) => el("span", { class: "chosen" },
    names.length > 1 ? letter(at) : null,
    el("select", { "aria-label": names.length > 1 ? `Model ${LETTERS[at]}` : "Model", onchange: (event) => choose(names.map((old, i) => (i === at ? event.target.value : old))) }, ...options(name)),
    names.length > 1 ? null : el("span", { class: "facts" }, facts(state.models.get(name))),
    at ? el("button", { type: "button", class: "link", onclick: () => choose(names.slice(0, 1)) }, "One model") : null);
  const another = [...state.models.keys()].find((name) => name !== names[0]) || names[0];
  byId("models").replaceChildren(...names.map(picker),
    names.length === 1 ? el("button", { type: "button", class: "link", id: "compare", onclick: () => choose([names[0], another]) }, "Compare two") : "");
  if (changed && state.turns.length) restart();
  drawStages();
  if (byId("mask").options.length) fillSettings();
}

const letter = (at) => el("span", { class: `letter ${at ? "b" : "a"}` }, LETTERS[at]);
const facts = (model) => [`${model.parameters.toLocaleString("en")} parameters`, model.mask, model.sees ? "" : "sees no pictures"].filter(Boolean).join(" · ");

// ---- Settings

function fillSettings() {
  const models = shown(), form = byId("form"), before = new FormData(form);
  const own = (values) => [...new Set(values)].join(", ");
  // The models' own way comes first, and stands for no change.
  const fill = (id, values, first, usable) => byId(id).replaceChildren(el("option", { value: "" }, `${first} (own)`),
    ...values.filter((value) => value !== first).map((value) => el("option", { value, disabled: !usable(value), selected: before.get(id) === value && usable(value) }, value)));
  fill("mask", models[0].masks, own(models.map((model) => model.mask)), () => true);
  fill("templates", ["plain", "instruct", "chat"], own(models.map((model) => model.own_templates)), (value) => models.every((model) => model.templates.includes(value)));
  const limits = models[0].limits, length = byId("length"), beams = byId("beams");
  length.max = limits.answer;
  length.defaultValue = String(state.length);
  if (!length.value) length.value = String(state.length);
  beams.max = limits.beams;
  const talks = models.every((model) => model.talks);
  byId("remember").defaultChecked = talks;
  byId("remember-hint").textContent = talks ? "are sent along" : "are sent along; this model was trained on single ones";
  showSettings();
}

function settings() {
  const data = new FormData(byId("form")), beams = Number(data.get("beams"));
  return {
    mask: data.get("mask") || undefined, templates: data.get("templates") || undefined, task: data.get("task") || undefined,
    num_beams: beams > 1 ? beams : undefined, temperature: beams > 1 ? 0 : Number(byId("temperature").value), max_tokens: Number(data.get("length")) || state.length,
  };
}

function showSettings() {
  const now = settings(), beams = Boolean(now.num_beams);
  byId("temperature").disabled = beams;
  byId("warmth").textContent = beams ? "–" : now.temperature.toFixed(2).replace(/\.?0+$/, "") || "0";
  byId("changed").textContent = described(now).join(" · ");
}

// What differs from the model's own ways, in words.
const described = (set) => [set.mask, set.templates && `${set.templates} prompts`, set.task && `asked as ${byId("task").querySelector(`[value="${set.task}"]`).textContent}`,
  set.num_beams && `${set.num_beams} beams`, set.temperature > 0 && `temperature ${set.temperature}`].filter(Boolean);

// ---- The picture

const readFile = (file) => new Promise((done, failed) => {
  const reader = new FileReader();
  reader.onload = () => done(reader.result);
  reader.onerror = () => failed(reader.error);
  reader.readAsDataURL(file);
});

async function takeFile(file) {
  if (!file) return;
  const limit = shown()[0]?.limits.body * 0.7;
  if (!file.type.startsWith("image/")) return error(`${file.name || "This"} is no picture.`);
  if (file.size > limit) return error(`${file.name} has ${(file.size / 2 ** 20).toFixed(0)} MB, and the server takes ${(limit / 2 ** 20).toFixed(0)}; make it smaller.`);
  await takePicture({ uri: await readFile(file), name: file.name || "pasted picture" });
}

async function takePicture(picture) {
  const image = new Image();
  image.src = picture.uri;
  try {
    await image.decode();
  } catch {
    return error(`This browser cannot show ${picture.name}; a PNG or JPEG of it will do.`);
  }
  quiet();
  if (state.turns.length) restart();
  state.picture = { ...picture, width: image.naturalWidth, height: image.naturalHeight };
  drawStages();
  drawTurns();
  byId("text").focus({ preventScroll: true });
}

function drawStages() {
  const picture = state.picture, drop = byId("drop"), stages = byId("stages");
  stages.querySelectorAll(".stage").forEach((node) => node.remove());
  drop.hidden = Boolean(picture);
  byId("under").hidden = !picture;
  byId("sample-facts").hidden = !picture?.sample;
  for (const button of byId("strip").children) button.setAttribute("aria-pressed", String(button.sample === picture?.sample && Boolean(picture)));
  state.kept = null;
  if (!picture) return;
  byId("picture-facts").textContent = `${picture.name} · ${picture.width} × ${picture.height}`;
  if (picture.sample) byId("sample-facts").textContent = sampleFacts(picture.sample);
  state.chosen.forEach((name, at) => stages.append(stage(picture, state.models.get(name), at)));
}

function stage(picture, model, at) {
  const image = el("img", { src: picture.uri, alt: `The picture: ${picture.name}`, class: Math.max(picture.width, picture.height) <= SMALL ? "pixels" : null });
  const canvas = el("canvas", { "aria-hidden": "true" });
  const box = el("div", { class: "picture", vars: { "--ratio": String(picture.width / picture.height), ...frame(picture, model.frame) } }, image, canvas);
  const legend = el("div", { class: "legend", "aria-hidden": "true" }, el("span", { class: "word" }), el("span", { class: "ramp" }), el("span", { class: "peak" }));
  return el("div", { class: "stage" }, box, state.chosen.length > 1 ? letter(at) : null, legend);
}

// Where in the picture the square lies that the tower sees: all of it, its middle, or it and what it is padded with.
function frame(picture, seen) {
  const { width, height } = picture;
  let [wide, high] = [width, height];
  if (seen && seen.mode !== "squash") {
    const side = (seen.mode === "crop" ? Math.min(width, height) : Math.max(width, height)) / seen.margin;
    [wide, high] = [side, side];
  }
  const share = (part, of) => `${(100 * part) / of}%`;
  return { "--left": share((width - wide) / 2, width), "--top": share((height - high) / 2, height), "--wide": share(wide, width), "--high": share(high, height) };
}

// ---- Samples

async function loadSamples() {
  const name = [...state.models.values()].find((model) => model.samples)?.name;
  if (!name) return;
  const response = await fetch(`/api/samples/${name}`);
  if (!response.ok) return;
  const samples = (await response.json()).samples;
  byId("strip").replaceChildren(...samples.map((sample) => {
    const about = sample.question || "caption";
    const button = el("button", { type: "button", title: about, "aria-label": `Sample: ${about}`, "aria-pressed": "false", onclick: () => takeSample(sample) },
      el("img", { src: sample.picture, alt: "", loading: "lazy", class: sample.pixels ? "pixels" : null }));
    button.sample = sample;
    return button;
  }));
  byId("samples").hidden = !samples.length;
}

async function takeSample(sample) {
  await takePicture({ uri: sample.picture, name: `sample of ${sample.set}`, sample });
  byId("text").value = sample.question;
}

function sampleFacts(sample) {
  const truth = [...new Set(sample.references)].slice(0, 3).join(" / ");
  return `In the evaluation${sample.question ? `, “${sample.question}”` : ""}: the model said “${sample.said}”${truth ? `; references: ${truth}` : ""}`;
}

// ---- Asking

function restart() {
  stop();
  state.turns = [];
  state.kept = null;
  unattend();
  drawTurns();
}

function drawTurns() {
  const empty = byId("empty");
  byId("turns").replaceChildren(empty, ...state.turns.map((turn) => turn.node));
  empty.hidden = state.turns.length > 0;
  byId("clear").hidden = !state.turns.length;
  if (state.turns.length || !state.chosen.length) return;
  const sees = shown().some((model) => model.sees);
  empty.replaceChildren(...(state.picture || !sees
    ? [el("p", {}, sees ? "Ask about the picture, or have it captioned." : "Ask something: this model sees no pictures."), el("p", {}, "Then point at a word of the answer: it shows where the model looked, how sure it was, and what else it might have said.")]
    : [el("p", {}, "Show a picture, ask about it, go on asking. Each word of an answer says where the model looked, how sure it was, and what else it might have said."), el("p", {}, "Nothing leaves this machine.")]));
}

function ask(text) {
  const form = byId("form");
  if (!form.reportValidity() || state.running.size) return;
  const turn = { text, answers: state.chosen.map((name, at) => answer(name, at, settings())), picture: Boolean(state.picture) };
  turn.node = el("article", { class: "turn" },
    el("div", { class: "row" }, el("p", { class: `question${text ? "" : " wordless"}`, dir: "auto" }, text || "Caption"), el("span", { class: "grow" }),
      el("button", { type: "button", class: "link", title: "The same question, with the settings as they are now", onclick: () => ask(text) }, "Ask again")),
    el("div", { class: "answers" }, ...turn.answers.map((one) => one.node)));
  state.turns.push(turn);
  drawTurns();
  turn.node.scrollIntoView({ block: "nearest" });
  turn.answers.forEach((one, at) => stream(turn, one, at));
}

function answer(name, at, set) {
  const said = el("p", { class: "said", dir: "auto" });
  const node = el("div", { class: `answer ${at ? "b" : "a"}`, "aria-busy": "true" }, said);
  return { name, at, set, said, node, text: "", tokens: null, ended: "" };
}

// What a model is told of the turns before, and of this one.
function messages(turn, at) {
  const earlier = byId("remember").checked && turn.answers[at].set.task !== "raw" ? state.turns.slice(0, state.turns.indexOf(turn)).filter((one) => one.answers[at]?.text) : [];
  const model = state.models.get(turn.answers[at].name);
  const out = [...earlier, turn].map((one) => [{ role: "user", content: one.text ? [{ type: "text", text: one.text }] : [] }, { role: "assistant", content: one.answers[at].text }]).flat().slice(0, -1);
  if (state.picture && model.sees) out[0].content.unshift({ type: "image_url", image_url: { url: state.picture.uri } });
  return out;
}

async function stream(turn, one, at) {
  const control = new AbortController(), began = performance.now();
  state.running.add(control);
  busy();
  const slow = el("p", { class: "slow soft" }, "A first answer of its kind is compiled, which takes a moment.");
  const waiting = setTimeout(() => one.text || one.said.after(slow), PATIENCE);
  try {
    const body = { model: one.name, messages: messages(turn, at), stream: true, explain: true, ...one.set };
    const response = await fetch("/v1/chat/completions", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal: control.signal });
    if (!response.ok) throw new Error((await response.json()).error.message);
    for await (const event of events(response.body)) {
      if (event.error) throw new Error(event.error.message);
      const choice = event.choices[0];
      if (choice?.delta.content) {
        slow.remove();
        one.said.textContent = one.text += choice.delta.content;
      }
      if (choice?.finish_reason) one.ended = choice.finish_reason;
      if (event.vlax) one.tokens = event.vlax;
    }
    if (!one.text) one.said.replaceChildren(el("span", { class: "soft" }, "(an empty answer)"));
  } catch (failure) {
    if (failure.name === "AbortError") one.ended = "stopped";
    else one.node.append(el("p", { class: "fault", role: "alert" }, failure instanceof TypeError ? "The server does not answer. Is vlax serve still running?" : failure.message));
  }
  clearTimeout(waiting);
  slow.remove();
  one.node.setAttribute("aria-busy", "false");
  state.running.delete(control);
  if (one.tokens?.tokens.length) explainable(one);
  one.node.append(meta(one, (performance.now() - began) / 1000));
  busy();
  turn.node.scrollIntoView({ block: "nearest" });
}

// The JSON of each server-sent event.
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) if (part.startsWith("data: {")) yield JSON.parse(part.slice(6));
  }
}

function meta(one, seconds) {
  const number = one.tokens ? count(one.tokens.tokens.length, "token") : "";
  const ends = { length: "cut at the longest answer", stopped: "stopped" }[one.ended];
  const parts = [one.name, ...described(one.set), number, ends, `${seconds.toFixed(seconds < 1 ? 2 : 1)} s`].filter(Boolean);
  return el("div", { class: "meta" }, state.chosen.length > 1 ? letter(one.at) : null, el("span", {}, parts.join(" · ")));
}

function busy() {
  const on = state.running.size > 0;
  for (const id of ["caption", "send"]) byId(id).hidden = on;
  byId("stop").hidden = !on;
  byId("turns").setAttribute("aria-busy", String(on));
}

function stop() {
  for (const control of state.running) control.abort();
}

// ---- Tokens

// The answer's words become tokens that can be touched.
function explainable(one) {
  const { tokens, attention } = one.tokens;
  const seen = attention[0] && state.picture ? unpackAttention(attention[0]) : null;
  one.grids = seen && { each: seen, mean: meanGrid(seen), height: attention[0].height, width: attention[0].width };
  one.marks = tokens.map((token, n) => mark(one, token, n));
  one.said.replaceChildren(...one.marks.flatMap(({ before, node }) => [before, node]));
  one.said.setAttribute("role", "group");
  one.said.setAttribute("aria-label", `Answer: ${one.text}. Arrow keys go from token to token.`);
  one.detail = el("div", { class: "detail" });
  one.said.after(one.detail);
  detail(one, null);
}

function mark(one, token, n) {
  const end = token.text === "<end>", first = n === 0;
  const text = end ? "end" : token.text;
  const [, space, word] = text.match(/^(\s*)([\s\S]*)$/);
  const sure = Math.exp(token.logprob);
  const kind = ["token", sure < 0.5 ? "doubtful" : sure < 0.9 ? "likely" : "", end ? "end" : "", word ? "" : "blank"].filter(Boolean).join(" ");
  const node = el("span", { class: kind, role: "button", tabindex: first ? "0" : "-1", "aria-pressed": "false", "aria-label": `${word || "space"}, ${percent(sure)}`,
    onclick: () => keep(one, n), onkeydown: (event) => move(event, one, n),
    onpointerenter: (event) => event.pointerType === "mouse" && attend(one, n), onpointerleave: (event) => event.pointerType === "mouse" && back(),
    onfocus: (event) => event.currentTarget.matches(":focus-visible") && attend(one, n), onblur: back }, word || space || "…");
  return { node, before: word && !first && !end ? space : "" };
}

function move(event, one, n) {
  const next = { ArrowLeft: n - 1, ArrowUp: n - 1, ArrowRight: n + 1, ArrowDown: n + 1, Home: 0, End: one.marks.length - 1 }[event.key];
  if (next !== undefined) {
    const to = one.marks[(next + one.marks.length) % one.marks.length].node;
    one.marks.forEach(({ node }) => node.setAttribute("tabindex", node === to ? "0" : "-1"));
    to.focus();
  } else if (event.key === "Enter" || event.key === " ") keep(one, n);
  else return;
  event.preventDefault();
}

// What is kept is shown until it is chosen again, or Escape.
function keep(one, n) {
  const same = state.kept?.one === one && state.kept.n === n;
  release();
  if (same) return back();
  state.kept = { one, n };
  one.marks[n]?.node.setAttribute("aria-pressed", "true");
  attend(one, n);
}

function release() {
  if (!state.kept) return;
  const { one, n } = state.kept;
  one.marks[n]?.node.setAttribute("aria-pressed", "false");
  state.kept = null;
  unattend();
  detail(one, null);
}

const back = () => {
  if (state.kept) attend(state.kept.one, state.kept.n);
  else unattend();
};

function attend(one, n) {
  const token = one.tokens.tokens[n], grids = one.grids;
  if (state.shown && state.shown !== one) settle(state.shown);
  state.shown = one;
  detail(one, n);
  const node = document.querySelectorAll(".stage")[one.at];
  document.querySelectorAll(".stage").forEach((other) => other !== node && !grids && other.classList.remove("attending"));
  if (!node || !grids) return;
  const grid = n === WHOLE ? grids.mean : grids.each[n];
  node.classList.add("attending");
  paint(node.querySelector("canvas"), grid, grids.height, grids.width);
  node.querySelector(".word").textContent = n === WHOLE ? "mean over the answer" : token.text.trim() || "space";
  node.querySelector(".peak").textContent = `peak ${percent(Math.max(...grid))}`;
  const place = placeOf(grid, grids.height, grids.width);
  say(n === WHOLE ? `On the whole: ${place}` : `${token.text.trim()}: ${percent(Math.exp(token.logprob))}, looked at ${place}`);
}

function unattend() {
  document.querySelectorAll(".stage.attending").forEach((node) => node.classList.remove("attending"));
  if (state.shown) settle(state.shown);
  state.shown = null;
}

// An answer that nobody points at says what is kept of it.
const settle = (one) => detail(one, state.kept?.one === one ? state.kept.n : null);

// Below an answer: a token's probability and its best alternatives.
function detail(one, n) {
  const token = one.tokens.tokens[n];
  const whole = one.grids ? el("button", { type: "button", class: "whole", "aria-pressed": String(n === WHOLE), onclick: () => keep(one, WHOLE) }, "whole answer") : null;
  if (!token) {
    const doubtful = one.tokens.tokens.filter((each) => each.logprob < Math.log(0.5)).length;
    const first = state.turns[0]?.answers.includes(one), look = one.grids ? "where the model looked, and " : "";
    const hint = n === WHOLE ? "The mean over all tokens." : first ? `Point at a word: ${look}what else it might have said.${doubtful ? " Dashed: less than even odds." : ""}` : "";
    one.detail.replaceChildren(...[whole, el("span", { class: "hint" }, hint)].filter(Boolean));
    return;
  }
  const others = token.top.filter(([, logprob]) => logprob > Math.log(5e-4)).slice(0, state.chosen.length > 1 ? 4 : 5);
  const option = ([text, logprob], taken) => el("span", { class: `option${taken ? " taken" : ""}`, vars: { "--share": percent(Math.exp(logprob)).replace(" ", "") } },
    el("span", { class: "word" }, text.replace(/^ (?=\S)/, "").replace(/ /g, "␣").replace(/\n/g, "↵").replace(/\ufffd+/g, "…") || "…"), el("span", {}, percent(Math.exp(logprob))));
  one.detail.replaceChildren(...[whole, option([token.text, token.logprob], true), ...others.map((other) => option(other, false))].filter(Boolean));
}

// ---- What people do

function listen() {
  byId("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = byId("text").value.trim();
    if (!text) return byId("text").focus();
    byId("text").value = "";
    ask(text);
  });
  byId("text").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    byId("composer").requestSubmit();
  });
  byId("caption").addEventListener("click", () => ask(""));
  byId("stop").addEventListener("click", stop);
  byId("clear").addEventListener("click", restart);
  byId("file").addEventListener("change", (event) => takeFile(event.target.files[0]).then(() => { event.target.value = ""; }));
  byId("other").addEventListener("click", () => byId("file").click());
  byId("without").addEventListener("click", () => { restart(); state.picture = null; drawStages(); drawTurns(); });
  byId("form").addEventListener("input", showSettings);
  byId("form").addEventListener("reset", () => setTimeout(showSettings));
  byId("form").addEventListener("submit", (event) => event.preventDefault());
  addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files || [])].find((one) => one.type.startsWith("image/"));
    if (file) { event.preventDefault(); takeFile(file); }
  });
  addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dragging"); });
  addEventListener("dragleave", (event) => event.relatedTarget || document.body.classList.remove("dragging"));
  addEventListener("drop", (event) => { event.preventDefault(); document.body.classList.remove("dragging"); takeFile(event.dataTransfer.files[0]); });
  addEventListener("keydown", (event) => { if (event.key === "Escape") { release(); unattend(); } });
  byId("theme").addEventListener("click", () => {
    const dark = matchMedia("(prefers-color-scheme: dark)").matches, root = document.documentElement;
    theme((root.dataset.theme || (dark ? "dark" : "light")) === "dark" ? "light" : "dark");
  });
}

function theme(name) {
  document.documentElement.dataset.theme = name;
  try { localStorage.setItem("vlax-theme", name); } catch { /* private windows have none */ }
}

try { const kept = localStorage.getItem("vlax-theme"); if (kept) document.documentElement.dataset.theme = kept; } catch { /* the same */ }
listen();
load();
