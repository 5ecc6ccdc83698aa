// Elements, numbers and names that all parts of the page use.

// el("p", {class: "soft", onclick: f, vars: {"--at": "20%"}}, "text", node). Strings become text nodes: nothing is ever parsed as markup.
function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "vars") for (const [name, setting] of Object.entries(value)) node.style.setProperty(name, setting);
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

const byId = (id) => document.getElementById(id);
const known = (value) => value !== null && value !== undefined;
const MINUS = "\u2212";

// number(-0.5, 3) -> "−0.500"; dash where there is none.
function number(value, digits) {
  if (!known(value)) return "–";
  return value.toFixed(digits).replace("-", MINUS);
}

const signed = (value) => (known(value) && value > 0 ? "+" : "") + number(value, 3);
const range = (interval) => `[${number(interval[1], 3)}, ${number(interval[2], 3)}]`;
const count = (n, word) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;

// "up" or "down" where the interval of a difference leaves zero out, else "level".
function direction(interval) {
  return interval[1] > 0 ? "up" : interval[2] < 0 ? "down" : "level";
}

const ARROWS = { up: "▲", down: "▼", level: "≈" };
const MEANINGS = { up: "higher: the interval lies above zero", down: "lower: the interval lies below zero", level: "no clear difference: the interval holds zero" };

// A difference with its interval, as text with a sign that does not rely on colour.
function difference(interval) {
  if (!interval) return el("span", { class: "soft" }, "–");
  const way = direction(interval);
  return el("span", { class: `difference ${way}`, title: MEANINGS[way] },
    el("span", { class: "arrow", "aria-hidden": "true" }, ARROWS[way]), el("b", {}, signed(interval[0])), " ", el("span", { class: "interval" }, range(interval)));
}

// Of a share of 1: "4.1 %".
const percent = (share) => `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;

// The least of 1, 2, 2.5, 5 x 10^n (or 4, 6, 8) that holds `value`: the end of an axis.
function niceEnd(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10].map((step) => step * power).find((end) => end >= value * 0.9999);
}

const headlineScore = (sample) => Object.values(sample.scores)[0];
