// Attention of answer tokens, painted over the picture.

// Inferno (Smith and van der Walt, CC0) at thirteen even steps: even in lightness, so that it reads the same without colour vision.
const HEAT = ["000004", "110a30", "320a5e", "57106e", "781c6d", "9a2865", "bc3754", "d84c3e", "ed6925", "f98e09", "fbb61a", "f4df53", "fcffa4"]
  .map((code) => [0, 2, 4].map((i) => parseInt(code.slice(i, i + 2), 16)));
const PAINTED = 112;  // pixels of the painted overlay's long side; the browser enlarges it

// Shares of the token's attention on the image: [n, height * width].
function unpackAttention(packed) {
  const bytes = Uint8Array.from(atob(packed.data), (letter) => letter.charCodeAt(0));
  const cells = packed.height * packed.width;
  return packed.tokens.map((_, n) => Array.from(bytes.subarray(n * cells, (n + 1) * cells), (byte) => (byte / 255) * packed.peaks[n]));
}

function meanGrid(grids) {
  return grids[0].map((_, cell) => grids.reduce((sum, grid) => sum + grid[cell], 0) / grids.length);
}

// Catmull-Rom weights of the four cells around `at`, an output position in cells; cells beyond the edge repeat the edge.
function taps(at, size) {
  const first = Math.floor(at), t = at - first;
  const weights = [-t * (1 - t) ** 2, 2 - 5 * t * t + 3 * t ** 3, t * (1 + 4 * t - 3 * t * t), -t * t * (1 - t)];
  return weights.map((weight, i) => [Math.min(size - 1, Math.max(0, first - 1 + i)), weight / 2]);
}

// Paints grid[height * width] on the canvas, from 0 (dark, sheer) to the grid's peak (bright, dense).
function paint(canvas, grid, height, width) {
  const scale = PAINTED / Math.max(height, width);
  canvas.width = Math.max(width, Math.round(width * scale));
  canvas.height = Math.max(height, Math.round(height * scale));
  const peak = Math.max(...grid) || 1;
  const across = Array.from({ length: canvas.width }, (_, x) => taps(((x + 0.5) * width) / canvas.width - 0.5, width));
  const context = canvas.getContext("2d"), picture = context.createImageData(canvas.width, canvas.height);
  for (let y = 0; y < canvas.height; y++) {
    const down = taps(((y + 0.5) * height) / canvas.height - 0.5, height);
    for (let x = 0; x < canvas.width; x++) {
      let sum = 0;
      for (const [row, a] of down) for (const [column, b] of across[x]) sum += a * b * grid[row * width + column];
      const heat = Math.min(1, Math.max(0, sum / peak)), step = heat * (HEAT.length - 1), lower = Math.min(HEAT.length - 2, Math.floor(step));
      const pixel = 4 * (y * canvas.width + x);
      for (let i = 0; i < 3; i++) picture.data[pixel + i] = HEAT[lower][i] + (step - lower) * (HEAT[lower + 1][i] - HEAT[lower][i]);
      picture.data[pixel + 3] = 255 * (0.42 + 0.36 * heat);
    }
  }
  context.putImageData(picture, 0, 0);
}

// Spaces and line ends of a token are shown, since a chip without a sign looks broken.
function visibleToken(token) {
  const shown = token.replace(/^[ \u0120\u2581]+/, "").replace(/[\n\u010a]/g, "↵").replace(/\t/g, "⇥");
  return shown || (token ? "␣" : "∅");
}

// In words, for those who don't see the overlay: "top left", "middle".
function placeOf(grid, height, width) {
  const peak = grid.indexOf(Math.max(...grid));
  const third = (at, size, names) => names[Math.min(2, Math.floor((3 * (at + 0.5)) / size))];
  const down = third(Math.floor(peak / width), height, ["top", "", "bottom"]), across = third(peak % width, width, ["left", "", "right"]);
  return [down, across].filter(Boolean).join(" ") || "middle";
}

// Chips for the tokens of a sample. Pointing or focusing shows a token's overlay, choosing it keeps it, and choosing it again or Escape takes it away.
function attentionChips(packed, canvas, stage) {
  const grids = unpackAttention(packed);
  const choices = [["mean", meanGrid(grids), "mean over all tokens"], ...packed.tokens.map((token, n) => [visibleToken(token), grids[n], `token ${n + 1} of ${grids.length}`])];
  const peak = el("span", { class: "scale" });
  const spoken = el("span", { class: "hidden", "aria-live": "polite" });
  const legend = el("p", { class: "legend" }, el("span", {}, "Attention"), el("span", { class: "ask" }, "choose a token"),
    el("span", { class: "scale" }, "0"), el("span", { class: "scale ramp" }), peak, spoken);
  let kept = null;
  const show = (n) => {
    stage.classList.toggle("attending", n !== null);
    legend.classList.toggle("on", n !== null);
    if (n === null) return;
    paint(canvas, choices[n][1], packed.height, packed.width);
    peak.textContent = `peak ${percent(Math.max(...choices[n][1]))}`;
    spoken.textContent = placeOf(choices[n][1], packed.height, packed.width);
  };
  const keep = (n) => {
    kept = n;
    chips.forEach((chip, i) => chip.setAttribute("aria-pressed", String(i === kept)));
    show(kept);
  };
  const move = (event, n) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) chips[(n + step + chips.length) % chips.length].focus();
    else if (event.key === "Escape") keep(null);
  };
  const chips = choices.map(([text, , title], n) => el("button", { type: "button", class: n ? "chip" : "chip mean", title, "aria-pressed": "false",
    onclick: () => keep(kept === n ? null : n), onkeydown: (event) => move(event, n),
    onpointerenter: (event) => event.pointerType === "mouse" && show(n), onpointerleave: (event) => event.pointerType === "mouse" && show(kept),
    onfocus: (event) => event.currentTarget.matches(":focus-visible") && show(n), onblur: () => show(kept) }, el("bdi", {}, text)));
  return el("div", { class: "attention" }, legend, el("div", { class: "chips", role: "group", "aria-label": "Attention by token" }, ...chips));
}
