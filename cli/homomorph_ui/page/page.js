// The page with sliders. Each frame is one request; while one is on its way, only the newest wish is kept.

const AGAIN_MS = 1500; // pause before the server is asked again whether it is back
const FRAMES_PER_S = 12; // as in the files that are downloaded
const PARTS = [
  ["waiting", "waiting for the frame before", "var(--line)"],
  ["transfer", "to the server and back", "var(--good)"],
  ["model", "model", "var(--accent)"],
  ["drawing", "drawing", "var(--warm)"],
];

const element = (id) => document.getElementById(id);
const slots = { a: document.querySelector("[data-slot=a]"), b: document.querySelector("[data-slot=b]") };
const canvas = element("canvas");
const title = (name) => (name === "residual" ? "everything else" : name).replaceAll("_", " ");

let model = null; // as `GET model` describes it; null until it has answered
const pictures = { a: null, b: null }; // {base64, image} as the model takes them
const sliders = new Map(); // group -> its slider, see `makeSlider`
let all = null; // the slider that moves every group
let shown = null; // the frame on the canvas: {pixels: ImageData of the model's size}
let film = null; // {frames: [ImageData], index} once a morph was played; null when a slider has moved since
let playing = 0; // handle of the next animation frame; 0 when the film stands still

class Refused extends Error {} // the server answered, and said in words why it will not
class Unreachable extends Error {} // it cannot answer now; asking again helps

// Calls

async function call(path, body) {
  let response;
  try {
    response = await fetch(path, { method: body === undefined ? "GET" : "POST", body, cache: "no-store" });
    if (response.ok) return { response, content: await response.arrayBuffer() };
  } catch {
    throw new Unreachable("homomorph ui has stopped. Start it again; this page then goes on by itself.");
  }
  const said = await response.json().catch(() => ({ error: `the server failed (${response.status})` }));
  throw new (response.status === 503 ? Unreachable : Refused)(said.error);
}

const asJson = ({ content }) => JSON.parse(new TextDecoder().decode(content));

async function connect() {
  try {
    adopt(asJson(await call("model")));
  } catch (error) {
    report(error);
    return;
  }
  element("where").textContent = model.where;
  element("where").className = "up";
  element("problem").hidden = true;
  ask();
}

function report(error) {
  if (!(error instanceof Refused || error instanceof Unreachable)) throw error;
  element("problem").textContent = error.message;
  element("problem").hidden = false;
  if (error instanceof Refused) return;
  element("where").textContent = "No answer";
  element("where").className = "down";
  clearTimeout(report.again);
  report.again = setTimeout(connect, AGAIN_MS);
}

// The model's sliders and labels

function adopt(described) {
  const same = model && JSON.stringify([model.groups, model.labels]) === JSON.stringify([described.groups, described.labels]);
  const first = model === null;
  model = described;
  for (const button of document.querySelectorAll(".downloads button")) button.hidden = !model.kinds.includes(button.dataset.kind);
  if (!same) makeSliders();
  if (first) model.pictures.forEach((base64, index) => show("ab"[index], base64));
}

function makeSliders() {
  sliders.clear();
  all = makeSlider(element("all"), "All sliders", (strength) => {
    for (const slider of active()) slider.set(strength);
  });
  element("all").append(tag("div", { className: "scale" }, ...["0: as in A", "1", `${model.max_strength}: exaggerated`].map((words) => tag("span", {}, words))));
  element("groups").replaceChildren();
  for (const group of model.groups) {
    const place = tag("div", { className: "slider" });
    element("groups").append(place);
    const slider = makeSlider(place, title(group), showMean);
    slider.labels = null; // in the labels' mode: the chosen ones; null: the group stays as it is
    if (model.labels[group]) slider.chips = makeChips(place, slider, model.labels[group]);
    sliders.set(group, slider);
  }
  element("mode").hidden = Object.keys(model.labels).length === 0;
  if (element("mode").hidden) document.querySelector("[name=mode][value=picture]").checked = true;
  arrange();
}

function makeSlider(place, name, moved) {
  const id = `slider-${name.replaceAll(" ", "-")}`;
  const range = tag("input", { type: "range", id, min: 0, max: model.max_strength, step: 0.01, value: 0 });
  const output = tag("output", { htmlFor: id });
  const set = (strength) => {
    range.value = strength;
    output.textContent = Number(range.value).toFixed(2);
    fill(range);
  };
  range.addEventListener("input", () => {
    set(range.value);
    moved(Number(range.value));
    changed();
  });
  range.addEventListener("dblclick", () => {
    set(0);
    moved(0);
    changed();
  });
  place.replaceChildren(tag("label", { htmlFor: id }, name), output, range);
  set(0);
  return { place, range, set, strength: () => Number(range.value) };
}

function makeChips(place, slider, names) {
  const chips = tag("div", { className: "labels", role: "group" });
  const paint = () => {
    for (const chip of chips.children) {
      const name = chip.dataset.label;
      chip.setAttribute("aria-pressed", slider.labels !== null && (name ? slider.labels.includes(name) : !slider.labels.length));
    }
  };
  const choose = (name) => {
    const before = slider.labels;
    const several = element("several").firstElementChild.checked;
    if (!name) slider.labels = before?.length === 0 ? null : [];
    else if (several) slider.labels = before?.includes(name) ? before.filter((other) => other !== name) : [...(before ?? []), name];
    else slider.labels = before?.length === 1 && before[0] === name ? null : [name];
    if (slider.labels === null) slider.set(0);
    else if (before === null) slider.set(1);
    showMean();
    paint();
    arrange();
    changed();
  };
  for (const name of [...names, ""]) {
    const chip = tag("button", { type: "button" }, name ? title(name) : "none");
    chip.dataset.label = name;
    chip.addEventListener("click", () => choose(name));
    chips.append(chip);
  }
  paint();
  place.append(chips);
  return chips;
}

// Each mode has strengths of its own: what is taken from B is not what is done towards labels.
function changeMode() {
  for (const slider of sliders.values()) {
    const strength = slider.strength();
    slider.set(slider.other ?? 0);
    slider.other = strength;
  }
  showMean();
  arrange();
  changed();
}

const showMean = () => all.set(mean(active().map((slider) => slider.strength())));
const mode = () => document.querySelector("[name=mode]:checked").value;
const isReady = () => Boolean(model && pictures.a && (pictures.b || mode() === "labels"));
const active = () => [...sliders.values()].filter((slider) => mode() === "picture" || slider.labels !== null);

// Show what belongs to the mode, and let only those sliders move that do something.
function arrange() {
  const labels = mode() === "labels";
  const ready = isReady();
  for (const [group, slider] of sliders) {
    slider.place.hidden = labels && !model.labels[group];
    if (slider.chips) slider.chips.hidden = !labels;
    slider.range.disabled = !ready || !active().includes(slider);
  }
  if (all) all.range.disabled = !ready || active().length === 0;
  slots.b.hidden = labels;
  element("several").hidden = !labels;
  element("against").hidden = document.querySelector("[name=view]:checked").value === "result";
  const b = document.querySelector("[name=against][value=b]");
  b.disabled = labels || !pictures.b;
  if (b.disabled && b.checked) document.querySelector("[name=against][value=a]").checked = true;
  for (const control of document.querySelectorAll("#play, #position, .downloads button")) control.disabled = !ready;
  element("swap").hidden = !(pictures.a && pictures.b);
  element("hint").textContent = !pictures.a ? "Choose a picture to begin." : "Choose picture B, or edit towards labels.";
  element("hint").hidden = ready;
}

// Pictures

async function take(slot, file) {
  const mistake = slots[slot].querySelector(".mistake");
  mistake.hidden = true;
  try {
    if (file.size > model?.max_bytes) throw new Refused(`the file has more than ${model.max_bytes >> 20} MiB: scale it down first`);
    show(slot, asJson(await call("pictures", file)).picture);
  } catch (error) {
    if (!(error instanceof Refused)) return report(error);
    mistake.textContent = `${file.name || "The clipboard"}: ${error.message}`;
    mistake.hidden = false;
  }
}

function show(slot, base64) {
  const image = slots[slot].querySelector("img");
  image.onload = () => draw();
  image.src = `data:image/png;base64,${base64}`;
  image.hidden = false;
  slots[slot].querySelector(".empty").hidden = true;
  slots[slot].querySelector(".mistake").hidden = true;
  slots[slot].classList.add("filled");
  pictures[slot] = { base64, image };
  arrange();
  changed();
}

function takeAll(files, slot) {
  const order = slot === "b" ? ["b", "a"] : ["a", "b"];
  [...files].slice(0, 2).forEach((file, index) => take(order[index], file));
}

const emptySlot = () => (!pictures.a || mode() === "labels" ? "a" : "b");

// Frames

function wish(steps = 1, part = 1) {
  const labels = mode() === "labels";
  const strengths = {};
  const chosen = {};
  for (const [group, slider] of sliders) {
    if (labels && !model.labels[group]) continue;
    strengths[group] = slider.strength() * part;
    if (labels) chosen[group] = slider.labels ?? [];
    if (labels && slider.labels === null) strengths[group] = 0;
  }
  // A morph with all sliders at 0 would stand still: it goes all the way then.
  if (steps > 1 && Object.values(strengths).every((strength) => strength === 0))
    for (const group in strengths) if (!labels || sliders.get(group).labels !== null) strengths[group] = 1;
  return JSON.stringify({
    source: pictures.a.base64,
    ...(labels ? { labels: chosen } : { target: pictures.b.base64 }),
    strengths,
    steps,
    details: element("details").checked,
  });
}

let wanted = 0; // when the newest wish came up, in ms; 0 when there is none
let asking = false;
let changes = 0; // what has been changed so far, so that a morph of older sliders is not played

function changed() {
  changes++;
  stop();
  film = null;
  setPosition(1);
  ask();
}

// Ask for a frame. While one is on its way, nothing is queued: the next request takes the sliders as they are then.
async function ask() {
  wanted = performance.now();
  if (asking) return;
  setAsking(true);
  try {
    while (wanted && isReady()) {
      const came = wanted;
      wanted = 0;
      const start = performance.now();
      const { frames, model } = await request(wish());
      const arrived = performance.now();
      draw(frames[0]);
      const drawn = performance.now();
      showTimes({ waiting: start - came, transfer: arrived - start - model, model, drawing: drawn - arrived });
      element("problem").hidden = true;
    }
  } catch (error) {
    report(error);
  } finally {
    wanted = 0;
    setAsking(false);
  }
}

function setAsking(is) {
  asking = is;
  element("result").classList.toggle("busy", is);
}

async function request(body) {
  const { response, content } = await call("frames", body);
  const [count, height, width] = response.headers.get("x-frames").split(",").map(Number);
  const rgb = new Uint8Array(content);
  const frames = Array.from({ length: count }, (_, frame) => {
    const picture = new ImageData(width, height);
    for (let pixel = 0, from = frame * width * height * 3; pixel < picture.data.length; pixel += 4, from += 3) {
      picture.data[pixel] = rgb[from];
      picture.data[pixel + 1] = rgb[from + 1];
      picture.data[pixel + 2] = rgb[from + 2];
      picture.data[pixel + 3] = 255;
    }
    return picture;
  });
  return { frames, model: Number(/model;dur=([\d.]+)/.exec(response.headers.get("server-timing"))[1]) };
}

// Drawing

const small = new OffscreenCanvas(1, 1);

function toSmall(pixels) {
  small.width = pixels.width;
  small.height = pixels.height;
  small.getContext("2d").putImageData(pixels, 0, 0);
  return small;
}

function draw(pixels = shown) {
  if (!pixels) return;
  shown = pixels;
  const view = document.querySelector("[name=view]:checked").value;
  const other = pictures[document.querySelector("[name=against]:checked").value];
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  const size = canvas.width;
  for (const id of ["divider", "split"]) element(id).hidden = view !== "split";
  if (view === "difference" && other?.image.complete) pixels = difference(pixels, other.image);
  context.drawImage(toSmall(pixels), 0, 0, size, size);
  if (view === "split" && other?.image.complete) {
    const share = Number(element("split").value);
    const { naturalWidth: width, naturalHeight: height } = other.image;
    if (share > 0) context.drawImage(other.image, 0, 0, width * share, height, 0, 0, size * share, size);
    element("divider").style.left = `${100 * share}%`;
  }
}

// How far each value of a pixel is from the other picture's; white where it is farthest, black where nothing changed.
function difference(pixels, image) {
  const other = new OffscreenCanvas(pixels.width, pixels.height).getContext("2d");
  other.drawImage(image, 0, 0, pixels.width, pixels.height);
  const values = other.getImageData(0, 0, pixels.width, pixels.height).data;
  const result = new ImageData(pixels.width, pixels.height);
  for (let place = 0; place < values.length; place++)
    result.data[place] = place % 4 === 3 ? 255 : Math.abs(pixels.data[place] - values[place]);
  return result;
}

function showTimes(times_ms) {
  element("times").hidden = false;
  element("total").textContent = `${Math.round(Object.values(times_ms).reduce((sum, ms) => sum + ms))} ms`;
  const parts = PARTS.map(([name, words, colour]) => [tag("i", {}), ` ${words} ${times_ms[name].toFixed(0)}`, colour, times_ms[name]]);
  for (const [mark, , colour] of parts) mark.style.setProperty("--part", colour);
  element("parts").replaceChildren(...parts.map(([mark, words]) => tag("span", {}, mark, words)));
  document.querySelector(".bar").replaceChildren(
    ...parts.map(([mark, , , ms]) => {
      const bar = mark.cloneNode();
      bar.style.flexGrow = Math.max(ms, 0);
      return bar;
    }),
  );
}

// Film

async function makeFilm() {
  const button = element("play");
  const before = changes;
  button.disabled = true;
  try {
    const { frames } = await request(wish(Number(element("steps").value)));
    if (changes === before) film = { frames, index: 0 };
  } catch (error) {
    report(error);
  } finally {
    button.disabled = false;
  }
}

async function play() {
  if (playing) return stop();
  if (!film) await makeFilm();
  if (!film) return;
  element("play").classList.add("playing");
  element("play").querySelector(".text").textContent = "Pause";
  const last = film.frames.length - 1;
  const begin = performance.now() - (film.index % (2 * last)) * (1000 / FRAMES_PER_S);
  const step = (now) => {
    film.index = Math.floor(((now - begin) * FRAMES_PER_S) / 1000) % (2 * last); // there and back
    const index = film.index <= last ? film.index : 2 * last - film.index;
    setPosition(index / last);
    draw(film.frames[index]);
    playing = requestAnimationFrame(step);
  };
  playing = requestAnimationFrame(step);
}

function stop() {
  cancelAnimationFrame(playing);
  playing = 0;
  element("play").classList.remove("playing");
  element("play").querySelector(".text").textContent = "Play";
}

function setPosition(share) {
  element("position").value = share;
  fill(element("position"));
}

async function seek() {
  stop();
  fill(element("position"));
  if (!film) await makeFilm();
  if (!film) return;
  film.index = Math.round(Number(element("position").value) * (film.frames.length - 1));
  draw(film.frames[film.index]);
}

async function download(kind, whole) {
  const part = film ? Number(element("position").value) : 1;
  try {
    const { content, response } = await call(`files/${kind}`, whole ? wish(Number(element("steps").value)) : wish(1, part));
    const name = `${kind === "png" && whole ? "strip" : "morph"}.${kind}`;
    const href = URL.createObjectURL(new Blob([content], { type: response.headers.get("content-type") }));
    tag("a", { href, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(href), 60_000);
  } catch (error) {
    report(error);
  }
}

// Small helpers

function tag(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function fill(range) {
  range.style.setProperty("--fill", `${(100 * (range.value - range.min)) / (range.max - range.min)}%`);
}

const mean = (numbers) => numbers.reduce((sum, number) => sum + number, 0) / Math.max(numbers.length, 1);

// What the user does

for (const [slot, place] of Object.entries(slots)) {
  const input = place.querySelector("input");
  input.addEventListener("change", () => {
    takeAll(input.files, slot);
    input.value = ""; // so that the same file can be chosen again
  });
}
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  for (const place of Object.values(slots)) place.classList.toggle("over", place.contains(event.target));
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  for (const place of Object.values(slots)) place.classList.remove("over");
  if (!event.dataTransfer.files.length) report(new Refused("Only files can be dropped here. Save the picture as a file first."));
  takeAll(event.dataTransfer.files, event.target.closest("[data-slot]")?.dataset.slot ?? emptySlot());
});
document.addEventListener("paste", (event) => takeAll(event.clipboardData.files, emptySlot()));
element("swap").addEventListener("click", () => {
  const { a, b } = pictures;
  show("a", b.base64);
  show("b", a.base64);
});
element("mode").addEventListener("change", changeMode);
element("reset").addEventListener("click", () => {
  for (const slider of [all, ...sliders.values()]) slider.set(0);
  changed();
});
element("view").addEventListener("input", arrange);
for (const id of ["view", "against", "split"]) element(id).addEventListener("input", () => draw());
element("steps").addEventListener("change", changed);
element("details").addEventListener("change", changed);
element("play").addEventListener("click", play);
element("position").addEventListener("input", seek);
for (const button of document.querySelectorAll(".downloads button"))
  button.addEventListener("click", () => download(button.dataset.kind, button.dataset.film === "true"));
element("theme").addEventListener("click", () => {
  const dark = getComputedStyle(document.documentElement).colorScheme === "dark" ||
    (getComputedStyle(document.documentElement).colorScheme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.style.colorScheme = dark ? "light" : "dark";
});

connect();
