"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const SIDES = ["a", "b"], MIB = 2 ** 20;
const K = data.sides.length;
const PIXELS = Math.max(4, Math.round(32 / data.side)), GAP = 4;  // of a picture's pixel, and between pictures
const at = id => document.getElementById(id);

function number(value, digits = 3) {
  return value.toLocaleString("en", value >= 1000 ? {maximumFractionDigits: 0} : {maximumSignificantDigits: digits});
}

// -- what is chosen --------------------------------------------------------------------------------------------------

function fill(select, names) {
  for (const [value, text] of names) select.add(new Option(text, value));
}

function begin() {
  const batch = data.batches.indexOf(64);
  const starts = {a: data.depths.indexOf(data.trained), b: data.depths.length - 1};
  for (const side of SIDES) {
    at(`${side}-depth`).max = data.depths.length - 1;
    at(`${side}-depth`).value = starts[side];
    at(`${side}-bridge`).max = K;
    at(`${side}-bridge`).value = data.bridge;
  }
  at("batch").max = data.batches.length - 1;
  at("batch").value = batch < 0 ? data.batches.length - 1 : batch;
  fill(at("class"), Array.from({length: data.classes}, (_, label) => [label, label]));
  fill(at("policy"), data.policies.map(name => [name, name]));
  fill(at("precision"), data.precisions.map(name => [name, name]));
  fill(at("gpu"), Object.entries(data.gpus).map(([key, gpu]) => [key, gpu.name]));
  at("trained").textContent = `They were trained for d = ${data.trained}: other depths show what a subnet draws that was not trained.`;
  document.addEventListener("input", show);
}

function chosen() {
  const side = name => {
    const depth = at(`${name}-depth`).valueAsNumber, bridge = at(`${name}-bridge`).valueAsNumber;
    return {depth: data.depths[depth], bridge, index: data.plans[depth][bridge]};
  };
  const batch = at("batch").valueAsNumber;
  return {a: side("a"), b: side("b"), label: Number(at("class").value), batch, images: data.batches[batch],
          policy: at("policy").value, precision: at("precision").value, gpu: at("gpu").value, size: at("size").value};
}

const costOf = (index, now) => data.entries[index].paper[now.policy][now.precision];

function cacheOf(index, now) {  // MiB within each scale
  const bytes = now.size === "paper" ? costOf(index, now).kv_bytes : data.entries[index].kv_bytes[now.policy];
  return bytes.map(size => size * now.images / MIB);
}

// -- pictures --------------------------------------------------------------------------------------------------------

const sprites = data.entries.map(entry => {
  const image = new Image();
  image.src = entry.sprite;
  return image;
});

function pixels(index) {  // of a whole sprite
  const canvas = document.createElement("canvas"), image = sprites[index];
  canvas.width = image.width;
  canvas.height = image.height;
  const context = canvas.getContext("2d", {willReadFrequently: true});
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, image.width, image.height);
}

function differences(one, other) {  // for each class and each of its images, whether any pixel differs
  const left = pixels(one), right = pixels(other), side = data.side;
  const differs = (label, column) => {
    for (let y = label * side; y < (label + 1) * side; y++) {
      const first = 4 * (y * left.width + column * side);
      for (let i = first; i < first + 4 * side; i++) if (left.data[i] !== right.data[i]) return true;
    }
    return false;
  };
  return Array.from({length: data.classes}, (_, label) =>
    Array.from({length: data.images}, (_, column) => differs(label, column)));
}

function paint(canvas, index, columns, rows, place) {  // place: (column, row) -> [column of the sprite, its row, mark]
  const size = data.side * PIXELS, step = size + GAP;
  canvas.width = columns * step;
  canvas.height = rows * step;
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const [from, label, mark] = place(column, row);
      if (mark) {
        context.fillStyle = mark;
        context.fillRect(column * step, row * step, step, step);
      }
      context.drawImage(sprites[index], from * data.side, label * data.side, data.side, data.side,
                        column * step + GAP / 2, row * step + GAP / 2, size, size);
    }
  }
}

function showPictures(now) {
  const differs = differences(now.a.index, now.b.index), style = getComputedStyle(document.documentElement);
  for (const side of SIDES) {
    const {depth, bridge, index} = now[side], mark = style.getPropertyValue(`--${side}`);
    paint(at(`${side}-grid`), index, data.classes, data.images,
          (label, row) => [row, label, differs[label][row] && mark]);
    at(`${side}-grid`).setAttribute("aria-label", `${data.images} images of each class, d = ${depth}, N = ${bridge}`);
    paint(at(`${side}-grown`), index, K, 1,
          scale => [data.images + scale, now.label, data.entries[index].layers[scale] === data.entries[data.full].layers[scale] && style.getPropertyValue("--bridge")]);
    at(`${side}-grown`).setAttribute("aria-label", `An image of class ${now.label} after each of ${K} scales`);
  }
  const count = differs.flat().filter(Boolean).length;
  at("differ").textContent = `${count} of ${data.classes * data.images} pictures differ (framed); after each scale, grey marks those with all layers.`;
  for (const out of document.getElementsByClassName("class-out")) out.textContent = now.label;
}

// -- curve -----------------------------------------------------------------------------------------------------------

const LEFT = 76, RIGHT = 630, TOP = 14, BOTTOM = 212;

function draw(kind, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", kind);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  at("curve").append(element);
}

function showCurve(now) {
  const curves = Object.fromEntries(SIDES.map(side => [side, cacheOf(now[side].index, now)]));
  const most = Math.max(...curves.a, ...curves.b);
  const x = scale => LEFT + (RIGHT - LEFT) * (scale + 0.5) / K, y = value => BOTTOM - (BOTTOM - TOP) * value / most;
  at("curve").replaceChildren(at("curve-title"));
  SIDES.forEach((side, row) => data.entries[now[side].index].layers.forEach((layers, scale) => {
    if (layers !== data.entries[data.full].layers[scale]) return;
    draw("rect", {class: "bridge", x: x(scale - 0.5), width: (RIGHT - LEFT) / K, y: TOP + row * (BOTTOM - TOP) / 2,
                  height: (BOTTOM - TOP) / 2});
  }));
  draw("line", {class: "frame", x1: LEFT, x2: RIGHT, y1: BOTTOM, y2: BOTTOM});
  draw("line", {class: "frame", x1: LEFT, x2: LEFT, y1: TOP, y2: BOTTOM});
  for (const part of [0, 0.5, 1]) {
    draw("text", {x: LEFT - 6, y: y(part * most) + 4, "text-anchor": "end"}, number(part * most));
  }
  draw("text", {x: LEFT - 6, y: BOTTOM + 20, "text-anchor": "end"}, "MiB");
  const sides = now.size === "paper" ? data.paper_sides : data.sides;
  sides.forEach((side, scale) => {
    draw("text", {x: x(scale), y: BOTTOM + 20, "text-anchor": "middle"}, scale + 1);
    draw("text", {x: x(scale), y: BOTTOM + 40, "text-anchor": "middle"}, `${side}²`);
  });
  for (const side of SIDES) {
    const points = curves[side].map((value, scale) => [x(scale), y(value)]);
    draw("path", {class: `curve ${side}`, d: `M${points.map(point => point.join(",")).join("L")}`});
    for (const [cx, cy] of points) draw("circle", {class: `dot ${side}`, cx, cy, r: 3.5});
  }
}

// -- numbers ---------------------------------------------------------------------------------------------------------

function inWords(layers) {  // "30 x 6, 4 x 4"
  const runs = [];
  for (const count of layers) {
    if (runs.length && runs.at(-1)[0] === count) runs.at(-1)[1]++;
    else runs.push([count, 1]);
  }
  return runs.map(run => run.join(" × ")).join(", ");
}

function showNumbers(now) {
  const peak = index => Math.max(...data.entries[index].kv_bytes[now.policy]) / 1024;
  const gpu = data.gpus[now.gpu], batch = `${now.images} image${now.images > 1 ? "s" : ""}`;
  const latency = index => costOf(index, now).latency_s[now.gpu][now.batch];
  const memory = index => costOf(index, now).memory_mib[now.batch];
  const rows = [
    ["layers-run", "Layers × scales", index => inWords(data.entries[index].layers), null],
    ["work", "Token-layers over the full network's", index => data.entries[index].work, number],
    ["parameters", "Parameters that run at the last scale", index => data.entries[index].parameters, number],
    ["own-kv", "KV cache of this network, KiB an image", peak, number],
    ["kv", `KV cache of VAR-d30, MiB, ${batch}`, index => Math.max(...costOf(index, now).kv_bytes) * now.images / MIB, number],
    ["memory", `Peak memory of VAR-d30, MiB, predicted (${gpu.name}: ${number(gpu.memory_mib)})`, memory, number],
    ["latency", `Time of VAR-d30, s, predicted, ${batch}`, latency, number],
    ["speedup", "Speedup over the full VAR-d30, predicted", index => latency(data.full) / latency(index), number],
  ];
  at("numbers").replaceChildren(...rows.map(([id, name, value, form]) => {
    const row = document.createElement("tr"), head = document.createElement("th");
    row.id = id;
    head.scope = "row";
    head.textContent = name;
    const [first, second] = SIDES.map(side => value(now[side].index));
    const cells = form ? [form(first), form(second), number(second / first)] : [first, second, ""];
    row.append(head, ...cells.map(text => {
      const cell = document.createElement("td");
      cell.textContent = text;
      return cell;
    }));
    return row;
  }));
}

function show() {
  const now = chosen();
  for (const side of SIDES) {
    at(`${side}-depth-out`).textContent = now[side].depth;
    at(`${side}-bridge-out`).textContent = now[side].bridge;
  }
  at("batch-out").textContent = now.images;
  showPictures(now);
  showCurve(now);
  showNumbers(now);
}

begin();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
Promise.all(sprites.map(image => image.decode())).then(show);
