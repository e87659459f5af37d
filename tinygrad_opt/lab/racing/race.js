// The page of a race: paths over a surface, their heights, and the numbers of the step that is pointed at.

const race = JSON.parse(document.getElementById("race").textContent);
const find = (selector) => document.querySelector(selector);
const [map, curve] = [find("#map"), find("#curve")];
const [scrub, whose] = [find("#scrub"), find("#whose")];
const clickable = surface !== null && rules.some((rule) => rule !== null);

let paths = race.paths;                             // what is shown: the record, or runs from a new start
let spent = 0;                                      // the gradients that each path may have taken by now
let pointed = null;                                 // {path, k}: the point under the cursor
let playing = null;                                 // the time of the last frame

// ---- small helpers ------------------------------------------------------------------------------------------------

function make(tag, attributes = {}, text = null) {
  const svg = ["svg", "path", "line", "text", "rect", "g", "clipPath", "circle", "title"].includes(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== null) element.textContent = text;
  return element;
}

/** Print a number with five digits, as a page of mathematics does. */
function show(x) {
  if (x === null || !Number.isFinite(x)) return "not finite";
  const size = Math.abs(x);
  const short = Number(x.toPrecision(5));
  const text = size >= 1e5 || (size < 1e-4 && size > 0) ? Number(x.toPrecision(4)).toExponential() : String(short);
  return text.replaceAll("-", "−").replace("e+", "e");
}

/** Return round numbers that divide an interval into about `wanted` parts. */
function ticks(low, high, wanted) {
  const rough = (high - low) / wanted, unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((n) => n * unit >= rough) * unit;
  const first = Math.ceil(low / step);
  const count = Math.floor(high / step) - first + 1;
  return Array.from({length: count}, (_, k) => Number(((first + k) * step).toPrecision(6)));
}

const markers = {
  "o": "M5,0A5,5 0 1 1 -5,0A5,5 0 1 1 5,0Z", "s": "M-4.5,-4.5H4.5V4.5H-4.5Z", "D": "M0,-6L6,0L0,6L-6,0Z",
  "^": "M0,-6L5.5,4.5H-5.5Z", "v": "M0,6L5.5,-4.5H-5.5Z", "P": "M-2,-5.5H2V-2H5.5V2H2V5.5H-2V2H-5.5V-2H-2Z",
  "X": "M-5,-2.5L-2.5,-5L0,-2.5L2.5,-5L5,-2.5L2.5,0L5,2.5L2.5,5L0,2.5L-2.5,5L-5,2.5L-2.5,0Z",
  "*": "M0,-7L1.7,-2.3L6.7,-2.2L2.7,0.9L4.1,5.7L0,2.9L-4.1,5.7L-2.7,0.9L-6.7,-2.2L-1.7,-2.3Z",
};

/** Return the last point that a path has reached with what may be spent. */
function reached(path) {
  let k = path.spent.length - 1;
  while (path.spent[k] > spent) k--;
  return k;
}

const present = () => paths.filter((path) => !path.absent);

// ---- the ground: bands of colour, and lines of equal height -------------------------------------------------------

/** Return heights on a grid, on the scale that is drawn: from the surface itself, or from what was sent along. */
function sample(columns, rows) {
  const [[left, right], [bottom, top]] = race.box;
  if (surface === null) return race.heights;
  const values = new Float64Array(columns * rows);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const x = left + (right - left) * column / (columns - 1), y = bottom + (top - bottom) * row / (rows - 1);
      values[row * columns + column] = Math.log1p(Math.max(surface([x, y])[0] - race.lowest, 0));
    }
  }
  return {columns, rows, values};
}

function drawGround() {
  const canvas = map.querySelector("canvas"), area = areaOf(map);
  const {columns, rows, values} = sample(Math.ceil(area.width / 3), Math.ceil(area.height / 3));
  const style = getComputedStyle(document.documentElement);
  const [low, high] = ["--low", "--high"].map((name) => style.getPropertyValue(name).trim().split(" ").map(Number));
  const top = values.reduce((most, z) => z > most ? z : most, 0) || 1;
  const image = new ImageData(columns, rows);
  values.forEach((z, k) => {
    const place = 4 * ((rows - 1 - Math.floor(k / columns)) * columns + k % columns), share = z / top;
    low.forEach((from, channel) => { image.data[place + channel] = from + (high[channel] - from) * share; });
    image.data[place + 3] = 255;
  });
  const small = Object.assign(document.createElement("canvas"), {width: columns, height: rows});
  small.getContext("2d").putImageData(image, 0, 0);
  const scale = window.devicePixelRatio || 1, pen = canvas.getContext("2d");
  canvas.width = Math.round(map.clientWidth * scale);
  canvas.height = Math.round(map.clientHeight * scale);
  pen.scale(scale, scale);
  pen.drawImage(small, area.left, area.top, area.width, area.height);
  pen.strokeStyle = `rgb(${style.getPropertyValue("--contour")})`;
  const x = (column) => area.left + area.width * column / (columns - 1);
  const y = (row) => area.top + area.height * (1 - row / (rows - 1));
  pen.beginPath();
  contour(values, columns, rows, top / 16, (a, b) => {
    pen.moveTo(x(a[0]), y(a[1]));
    pen.lineTo(x(b[0]), y(b[1]));
  });
  pen.stroke();
}

/** Marching squares: a straight piece between two sides of a cell for each multiple of `every` that crosses it. */
function contour(values, columns, rows, every, piece) {
  for (let row = 0; row + 1 < rows; row++) {
    for (let column = 0; column + 1 < columns; column++) {
      const corners = [[column, row], [column + 1, row], [column + 1, row + 1], [column, row + 1]];
      const heights = corners.map(([i, j]) => values[j * columns + i]);
      const last = Math.floor(Math.max(...heights) / every);
      for (let n = Math.floor(Math.min(...heights) / every) + 1; n <= last; n++) {
        const crossed = [];
        heights.forEach((a, side) => {
          const next = (side + 1) % 4, b = heights[next], level = n * every;
          if (a < level === b < level) return;
          const share = (level - a) / (b - a), [from, to] = [corners[side], corners[next]];
          crossed.push([from[0] + share * (to[0] - from[0]), from[1] + share * (to[1] - from[1])]);
        });
        for (let k = 0; k + 1 < crossed.length; k += 2) piece(crossed[k], crossed[k + 1]);
      }
    }
  }
}

// ---- plots: a frame with ticks, and a line for each path ----------------------------------------------------------

/** The part of a plot that is inside of its frame, in pixels. */
function areaOf({clientWidth: width, clientHeight: height}) {
  return {left: 46, top: 8, width: width - 46 - 14, height: height - 8 - 22};
}

/** A plot knows how to place numbers: `x` and `y` in pixels, and `from` pixels back to numbers. */
function frame(holder, [[left, right], [bottom, top]], label = show, marks = null) {
  const svg = holder.querySelector("svg"), area = areaOf(holder), base = area.top + area.height;
  const far = (pixel) => Math.min(Math.max(pixel, -1e4), 1e4);
  const x = (value) => far(area.left + area.width * (value - left) / (right - left));
  const y = (value) => far(area.top + area.height * (1 - (value - bottom) / (top - bottom)));
  const from = (pixel, line) => [left + (right - left) * (pixel - area.left) / area.width,
                                 bottom + (top - bottom) * (1 - (line - area.top) / area.height)];
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${holder.clientWidth} ${holder.clientHeight}`);
  const clip = svg.appendChild(make("clipPath", {id: `${holder.id}-area`}));
  const box = {x: area.left, y: area.top, width: area.width, height: area.height};
  clip.append(make("rect", box));
  for (const value of ticks(left, right, Math.max(2, area.width / 90))) {
    svg.append(make("line", {class: "tick", x1: x(value), x2: x(value), y1: base, y2: base + 4}),
               make("text", {x: x(value), y: base + 18, "text-anchor": "middle"}, show(value)));
  }
  for (const value of marks || ticks(bottom, top, Math.max(2, area.height / 55))) {
    svg.append(make("line", {class: "tick", x1: area.left - 4, x2: area.left, y1: y(value), y2: y(value)}),
               make("text", {x: area.left - 7, y: y(value) + 4, "text-anchor": "end"}, label(value)));
  }
  svg.append(make("rect", {class: "frame", ...box}));
  const inner = svg.appendChild(make("g", {"clip-path": `url(#${holder.id}-area)`}));
  const under = inner.appendChild(make("g"));       // for what sets lines off from the ground and not from each other
  return {svg, area, x, y, from, inner, under};
}

/** Add the elements of a path to a plot, and return what draws it up to point k. */
function pen(plot, path, across, up) {
  const group = plot.inner.appendChild(make("g", {class: "path", style: `--color: ${path.color}`}));
  const casing = plot.under.appendChild(make("path", {class: "case"}));
  const line = group.appendChild(make("path", {class: "line", "stroke-dasharray": path.dash.join(" ")}));
  const mark = group.appendChild(make("path", {class: "mark", d: markers[path.marker]}));
  const xs = across(path), ys = up(path);
  const places = [];
  for (let k = 0; k < xs.length && Number.isFinite(xs[k] ?? NaN) && Number.isFinite(ys[k] ?? NaN); k++) {
    places.push(`${plot.x(xs[k]).toFixed(1)},${plot.y(ys[k]).toFixed(1)}`);
  }
  return {places, draw(k) {
    const here = places.slice(0, k + 1), d = here.length ? `M${here.join("L")}` : "";
    const seen = path.visible && !path.absent && here.length > 0;
    for (const element of [casing, group]) element.style.display = seen ? "" : "none";
    casing.setAttribute("d", d);
    line.setAttribute("d", d);
    if (seen) mark.setAttribute("transform", `translate(${here.at(-1)})`);
  }};
}

let view = null;                                    // the two plots and their pens, laid out for the window as it is

function layOut() {
  const plot = frame(map, race.box);
  plot.svg.setAttribute("aria-label", `Paths of ${paths.map((path) => path.label).join("; ")}`);
  const minima = race.minima.map(([x, y]) => {
    const place = `translate(${plot.x(x)} ${plot.y(y)}) scale(1.35)`;
    const star = make("path", {class: "minimum", d: markers["*"], transform: place});
    star.append(make("title", {}, `minimum (${show(x)}, ${show(y)})`));
    return star;
  });
  plot.inner.append(...minima);
  const pens = paths.map((path) => pen(plot, path, (p) => p.points[0], (p) => p.points[1]));
  const [x, y] = present()[0].points.map((column) => column[0]);
  plot.inner.append(make("circle", {class: "start", r: 4.5, cx: plot.x(x), cy: plot.y(y)}));
  const ring = plot.inner.appendChild(make("circle", {class: "ring", r: 9}));

  const {box, marks, label, height} = lossScale();
  const graph = frame(curve, box, label, marks), {top, height: tall} = graph.area;
  graph.svg.setAttribute("aria-label", find("#caption").textContent);
  const curves = paths.map((path) => pen(graph, path, (p) => p.spent, (p) => p.heights.map(height)));
  const now = graph.inner.appendChild(make("line", {class: "now", y1: top, y2: top + tall}));
  view = {plot, pens, ring, graph, curves, now};
  draw();
}

/** Return how losses are drawn: above the minimum and logarithmic where there is one. */
function lossScale() {
  const seen = (height) => present().flatMap((path) => path.heights.map(height)).filter(Number.isFinite);
  const end = Number(scrub.max), across = [-0.01 * end, 1.02 * end], first = present()[0].heights[0];
  if (race.minimum) {
    const height = (h) => h === null ? NaN : Math.log10(Math.max(h - race.lowest, 1e-16));
    const all = seen(height), top = Math.min(all.reduce((a, b) => Math.max(a, b)), height(first) + 2);
    const bottom = Math.min(all.reduce((a, b) => Math.min(a, b)), top - 1), step = Math.ceil((top - bottom) / 5);
    const marks = Array.from({length: 40}, (_, k) => step * (k - 20)).filter((n) => n >= bottom && n <= top);
    return {height, marks, box: [across, [bottom - 0.1, top + 0.1]], label: (n) => `1e${n}`.replace("-", "−")};
  }
  const height = (h) => h === null ? NaN : h, all = seen(height), bottom = all.reduce((a, b) => Math.min(a, b));
  const top = Math.min(all.reduce((a, b) => Math.max(a, b)), first + 2 * Math.abs(first - bottom));
  const room = 0.05 * (top - bottom) || 1;
  return {height, marks: null, box: [across, [bottom - room, top + room]], label: show};
}

// ---- what is shown now --------------------------------------------------------------------------------------------

function draw() {
  const places = paths.map(reached);
  view.pens.forEach((pen, n) => pen.draw(places[n]));
  view.curves.forEach((pen, n) => pen.draw(places[n]));
  view.now.setAttribute("x1", view.graph.x(spent));
  view.now.setAttribute("x2", view.graph.x(spent));
  scrub.value = spent;
  const unit = present().every((path) => path.spent.every((n, k) => n === k)) ? "step" : "gradient";
  scrub.setAttribute("aria-label", `${unit}s taken`);
  find("#place").textContent = `${unit} ${spent} of ${scrub.max}`;
  find("#caption").textContent = `loss${race.minimum ? " above the minimum" : ""}, by ${unit}s taken`;
  for (const path of paths) {
    path.entry.classList.toggle("left-out", Boolean(path.absent));
    path.entry.querySelector("output").textContent = path.absent ? "" : show(path.heights[reached(path)]);
  }
  drawNumbers();
}

/** Show the numbers of the point under the cursor; without one, of the chosen path as far as it is. */
function drawNumbers() {
  const {path, k} = pointed || {path: paths[Number(whose.value)], k: reached(paths[Number(whose.value)])};
  const place = view.pens[paths.indexOf(path)].places[k];
  const [cx, cy] = place && path.visible && !path.absent ? place.split(",") : [-99, -99];
  view.ring.setAttribute("cx", cx);
  view.ring.setAttribute("cy", cy);
  whose.value = String(paths.indexOf(path));
  find("#when").textContent = `After ${k} step${k === 1 ? "" : "s"}`;
  const rows = [["loss", [path.heights[k]]], ["gradients taken", [path.spent[k]]],
                ["point p", path.points.map((column) => column[k])]];
  const moves = k < path.slopes[0].length;
  if (moves) {
    rows.push(["gradient g", path.slopes.map((column) => column[k])]);
    for (const {text, name} of path.lines) rows.push([text, name === null ? null : valueOf(path, name, k)]);
    rows.push(["step", path.moves.map((column) => column[k])]);
  }
  find("#numbers tbody").replaceChildren(...rows.map(([name, values]) => {
    const row = make("tr");
    row.append(make("th", {scope: "row"}, name));
    if (values === null) row.append(make("td", {class: "whole", colspan: 2}, "…"));
    else if (values.length === 2) row.append(...values.map((value) => make("td", {}, show(value))));
    else row.append(make("td", {class: "whole", colspan: 2}, values.map(show).join(" ")));
    return row;
  }));
  const now = (value) => Array.isArray(value) ? value[k] : value;
  const told = Object.entries(path.told).map(([name, value]) => `${name} = ${show(now(value))}`).join(", ");
  find("#told").textContent = moves ? `The step from here, t = ${k + 1}${told && `: ${told}`}.`
                                    : "The run ends here. Point at a path to read its steps.";
}

/** Return what a name of the rule was after step k; a parameter is where the path went. */
function valueOf(path, name, k) {
  return (path.values[name] || path.points.map((column) => column.slice(1))).map((column) => column[k]);
}

// ---- running again from another start -----------------------------------------------------------------------------

/** Return a path as the record has it, from where `start` leads. */
function rerun(path, n, start) {
  if (rules[n] === null) return {...path, absent: true};
  const {points, heights, slopes, values} = walk(surface, rules[n], start, path.steps);
  const columns = (rows) => start.map((_, i) => rows.map((row) => row[i]));
  const names = path.lines.filter(({name}) => name !== null);
  return {
    ...path, heights, points: columns(points), slopes: columns(slopes), spent: heights.map((_, k) => k),
    moves: columns(slopes.map((_, k) => points[k + 1].map((p, i) => p - points[k][i]))),
    values: Object.fromEntries(names.map(({name, number}) => [
      name, columns(values.map((both) => both.map((own) => own[name]))).slice(0, number ? 1 : 2)])),
  };
}

function startAt(start) {
  setPaths(race.paths.map((path, n) => rerun(path, n, start)));
  find("#recorded").hidden = false;
  find("#status").textContent = `Run here, from (${start.map(show).join(", ")}), with the same options. ${race.absent}`;
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) { scrubTo(Number(scrub.max)); return; }
  spent = 0;
  play(true);
}

function setPaths(next) {
  next.forEach((path, n) => { path.visible = paths[n].visible ?? true; path.entry = paths[n].entry; });
  paths = next;
  pointed = null;
  if (paths[Number(whose.value)].absent) whose.value = String(paths.findIndex((path) => !path.absent));
  scrub.max = present().reduce((most, path) => Math.max(most, path.spent.at(-1)), 1);
  const start = present()[0].points.map((column) => column[0]);
  [find("#x").value, find("#y").value] = start.map((number) => Number(number.toPrecision(5)));
  layOut();
}

// ---- playing and pointing -----------------------------------------------------------------------------------------

function play(on) {
  const button = find("#play");
  button.textContent = on ? "Pause" : "Play";
  if (!on) { playing = null; return; }
  const end = Number(scrub.max);
  let at = spent >= end ? 0 : spent;
  playing = {};
  const mine = playing;
  let last = null;
  const advance = (time) => {
    if (playing !== mine) return;
    at += last === null ? 0 : (time - last) / 8000 * end * Number(find("#speed").value);
    last = time;
    spent = Math.min(Math.floor(at), end);
    draw();
    if (spent < end) requestAnimationFrame(advance); else play(false);
  };
  requestAnimationFrame(advance);
}

function scrubTo(value) {
  play(false);
  pointed = null;
  spent = Math.min(Math.max(Math.round(value), 0), Number(scrub.max));
  draw();
}

/** Return the point of a path nearest to a place in the map, if it is near. */
function nearest(px, py) {
  let best = null, least = 24;
  for (const path of present().filter((path) => path.visible)) {
    const {places} = view.pens[paths.indexOf(path)], last = reached(path);
    for (let k = 0; k <= last && k < places.length; k++) {
      const [x, y] = places[k].split(",").map(Number), distance = Math.hypot(x - px, y - py);
      if (distance < least) [best, least] = [{path, k}, distance];
    }
  }
  return best;
}

function within(holder, event) {
  const {left, top} = holder.getBoundingClientRect();
  return [event.clientX - left, event.clientY - top];
}

map.addEventListener("pointermove", (event) => {
  pointed = nearest(...within(map, event));
  drawNumbers();
});
map.addEventListener("pointerleave", () => { pointed = null; drawNumbers(); });
map.addEventListener("click", (event) => {
  const [px, py] = within(map, event), {left, top, width, height} = view.plot.area;
  const inside = px >= left && px <= left + width && py >= top && py <= top + height;
  if (clickable && inside) startAt(view.plot.from(px, py));
});
curve.addEventListener("pointerdown", (event) => {
  curve.setPointerCapture(event.pointerId);
  scrubTo(view.graph.from(...within(curve, event))[0]);
});
curve.addEventListener("pointermove", (event) => {
  if (event.buttons) scrubTo(view.graph.from(...within(curve, event))[0]);
});
find("#play").addEventListener("click", () => play(playing === null));
scrub.addEventListener("input", () => scrubTo(Number(scrub.value)));
whose.addEventListener("change", () => { pointed = null; drawNumbers(); });
document.addEventListener("keydown", (event) => {
  const step = {ArrowLeft: -1, ArrowRight: 1}[event.key];
  if (step && !event.target.closest("input, select")) { scrubTo(spent + step); event.preventDefault(); }
  if (event.key === " " && event.target === document.body) { play(playing === null); event.preventDefault(); }
});
find("#start").addEventListener("submit", (event) => {
  event.preventDefault();
  startAt([Number(find("#x").value), Number(find("#y").value)]);
});
find("#recorded").addEventListener("click", () => {
  play(false);
  find("#recorded").hidden = true;
  find("#status").textContent = "";
  setPaths(race.paths);
  scrubTo(Number(scrub.max));
});

// ---- the beginning ------------------------------------------------------------------------------------------------

race.paths.forEach((path, n) => {
  const entry = find("#legend").appendChild(make("label", {class: "entry"}));
  const box = entry.appendChild(make("input", {type: "checkbox"}));
  const swatch = entry.appendChild(make("svg", {class: "swatch", viewBox: "0 0 42 16", "aria-hidden": true}));
  swatch.style.setProperty("--color", path.color);
  swatch.append(make("path", {class: "line", d: "M1,8H41", "stroke-dasharray": path.dash.join(" ")}),
                make("path", {class: "mark", d: markers[path.marker], transform: "translate(21 8)"}));
  entry.append(make("span", {}, path.label), make("output"));
  box.checked = true;
  box.addEventListener("change", () => { paths[n].visible = race.paths[n].visible = box.checked; draw(); });
  path.entry = entry;
  whose.append(make("option", {value: n}, path.label));
});
find("#teaches").textContent = race.teaches;
find("#notes").textContent = race.notes;
find("#start").hidden = !clickable;
map.classList.toggle("clickable", clickable);
if (race.heights !== null) {
  const bytes = Uint8Array.from(atob(race.heights.levels), (letter) => letter.charCodeAt(0));
  race.heights.values = Float64Array.from(new Uint16Array(bytes.buffer), (level) => level * race.heights.unit);
}
whose.value = "0";
setPaths(race.paths);
scrubTo(Number(scrub.max));
new ResizeObserver(() => { drawGround(); layOut(); }).observe(map);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawGround);
