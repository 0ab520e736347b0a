"use strict";

// Data go into the page as text, never as markup.

const { Niivue, NVImage, SLICE_TYPE, DRAG_MODE } = niivue;
const data = JSON.parse(document.getElementById("data").textContent);
const { size, spacing } = data.grid;
const element = (id) => document.getElementById(id);

const UINT8 = 2, INT16 = 4;  // NIfTI codes of voxel types.
const DEPTH = 5;  // The largest distance, in mm, at which a slice shows a landmark.
const CLASSES = [[2, "small"], [5, "middle"], [Infinity, "large"]];  // Classes of errors: upper limits, in mm, and colours.

const MODES = {
  side: { key: "s", name: "Side by side" },
  overlay: { key: "o", name: "Overlay", slider: { min: 0, max: 100, step: 5, value: 50, unit: "%", from: "Fixed", to: () => shown().name } },
  checkerboard: { key: "c", name: "Checkerboard", slider: { min: 10, max: 80, step: 5, value: 30, unit: "mm", from: "Squares", to: () => "" } },
  difference: { key: "d", name: "Difference", slider: { min: 50, max: 1000, step: 50, value: 400, unit: "HU", from: "Range ±", to: () => "" } },
  displacement: { key: "v", name: "DVF", slider: { min: 0, max: 100, step: 5, value: 60, unit: "%", from: "Opacity", to: () => "" } },
  nonrigid: { key: "n", name: "DVF after affine", slider: { min: 0, max: 100, step: 5, value: 60, unit: "%", from: "Opacity", to: () => "" } },
  jacobian: { key: "j", name: "Jacobian", slider: { min: 0, max: 100, step: 5, value: 70, unit: "%", from: "Opacity", to: () => "" } },
};

// `sides` are the patient's sides at the left, right, upper and lower edge.
const PLANES = {
  all: { name: "All planes", slice: SLICE_TYPE.MULTIPLANAR },
  axial: { name: "Axial", slice: SLICE_TYPE.AXIAL, across: 2, sides: "RLAP" },
  coronal: { name: "Coronal", slice: SLICE_TYPE.CORONAL, across: 1, sides: "RLSI" },
  sagittal: { name: "Sagittal", slice: SLICE_TYPE.SAGITTAL, across: 0, sides: "APSI" },
};

const WINDOWS = {
  lung: { name: "Lung", level: -600, width: 1500 },
  narrow: { name: "Lung, narrow", level: -750, width: 700 },
  soft: { name: "Mediastinum", level: 40, width: 400 },
  full: { name: "Full", level: -259, width: 1530 },
};

const RANGES = { displacement: lengthRange("displacement"), nonrigid: lengthRange("nonrigid"), jacobian: [0, 2] };

const COLOURS = {
  difference: { R: [72, 38, 8, 150, 255], G: [150, 80, 8, 70, 150], B: [255, 170, 8, 20, 60], A: [255, 255, 255, 255, 255], I: [0, 64, 128, 192, 255] },
  // The first colour is for folding. 0.95 to 1.05 is transparent; NiiVue has no semi-transparent colours in an overlay.
  jacobian: {
    R: [255, 25, 60, 150, 150, 235, 235, 240, 220], G: [0, 60, 140, 200, 200, 215, 215, 140, 50], B: [255, 200, 250, 240, 240, 160, 160, 50, 20],
    A: [255, 255, 255, 255, 0, 0, 255, 255, 255], I: [0, 1, 64, 120, 121, 134, 135, 192, 255],
  },
};

const HELP = [
  [data.methods.length > 1 ? `1-${data.methods.length}` : "1", "image"], ["S", "side by side"], ["O", "overlay"], ["B", "blink"], ["C", "checkerboard"],
  ["D", "difference"], ["V", "DVF"], ["N", "DVF after affine"], ["J", "Jacobian"], ["P", "plane"], ["W", "window"], ["L", "landmarks"],
  [", .", "previous, next landmark"], ["← →", "slider"], ["↑ ↓", "slice"], ["+ - 0", "zoom"], ["drag right", "pan"],
];

const state = {
  mode: "side",
  method: data.methods.at(-1).id,
  plane: "all",
  window: "lung",
  landmarks: data.landmarks.length > 0,
  chosen: null,
};

const shown = () => data.methods.find((method) => method.id === state.method);

// From 0 to the largest length of any method, rounded up.
function lengthRange(kind) {
  const slopes = Object.entries(data.volumes).filter(([name]) => name.endsWith(`/${kind}`)).map(([, volume]) => volume.slope * 255);
  const largest = Math.max(1, ...slopes);
  const step = largest > 20 ? 10 : largest > 8 ? 4 : 1;
  return [0, Math.ceil(largest / step) * step];
}

// --- volumes ---

const codes = new Map();

// Undo the coding of rows as differences, modulo 256, from the previous voxel.
function summed(differences, row) {
  for (let voxel = 0; voxel < differences.length; voxel++) {
    if (voxel % row) differences[voxel] += differences[voxel - 1];
  }
  return differences;
}

function unpack(name) {
  if (!codes.has(name)) codes.set(name, load(name));
  return codes.get(name);
}

async function load(name) {
  const packed = atob(document.querySelector(`script[data-volume="${CSS.escape(name)}"]`).textContent);
  const bytes = new Uint8Array(packed.length);
  for (let index = 0; index < packed.length; index++) bytes[index] = packed.charCodeAt(index);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return summed(new Uint8Array(await new Response(stream).arrayBuffer()), size[0] / data.volumes[name].scale);
}

// Each layer keeps one NiiVue volume, whose voxels are replaced.
const layers = new Map();

async function layer(name, voxels, { slope, intercept, scale }, colours, [low, high]) {
  if (!layers.has(name)) {
    const sides = spacing.map((side) => side * scale);
    const [x, y, z] = sides.map((side, axis) => (side - spacing[axis]) / 2);
    const affine = [sides[0], 0, 0, x, 0, sides[1], 0, y, 0, 0, sides[2], z, 0, 0, 0, 1];
    const type = voxels instanceof Int16Array ? INT16 : UINT8;
    const bytes = NVImage.createNiftiArray(size.map((count) => count / scale), sides, affine, type, new Uint8Array(voxels.buffer));
    const header = new DataView(bytes.buffer);
    header.setFloat32(112, slope, true);
    header.setFloat32(116, intercept, true);
    layers.set(name, await NVImage.new(bytes.buffer, `${name}.nii`, colours, 1, null, low, high));
  }
  const volume = layers.get(name);
  volume.img = voxels;
  volume.hdr.scl_slope = slope;
  volume.hdr.scl_inter = intercept;
  volume.cal_min = low;
  volume.cal_max = high;
  volume.opacity = 1;
  return volume;
}

function windowRange() {
  const { level, width } = WINDOWS[state.window];
  return [level - width / 2, level + width / 2];
}

const ct = async (pane, name, voxels) => layer(`${pane} ct`, voxels ?? await unpack(name), data.volumes.fixed, "gray", windowRange());

function checkerboard(fixed, warped, millimetres) {
  const mixed = new Uint8Array(fixed.length);
  const square = spacing.map((side) => Math.max(1, Math.round(millimetres / side)));
  let voxel = 0;
  for (let z = 0; z < size[2]; z++) {
    for (let y = 0; y < size[1]; y++) {
      const row = Math.floor(z / square[2]) + Math.floor(y / square[1]);
      for (let x = 0; x < size[0]; x++, voxel++) {
        mixed[voxel] = (row + Math.floor(x / square[0])) % 2 ? warped[voxel] : fixed[voxel];
      }
    }
  }
  return mixed;
}

async function mainLayers() {
  const value = sliderValue();
  const [fixed, warped] = [await unpack("fixed"), await unpack(state.method)];
  switch (state.mode) {
    case "side":
      return [await ct("main", state.method)];
    case "overlay": {
      const above = await layer("above", warped, data.volumes.fixed, "gray", windowRange());
      above.opacity = value / 100;
      return [await ct("main", "fixed"), above];
    }
    case "checkerboard":
      return [await ct("main", null, checkerboard(fixed, warped, value))];
    case "difference": {
      const difference = Int16Array.from(fixed, (code, voxel) => code - warped[voxel]);
      return [await layer("difference", difference, { slope: data.volumes.fixed.slope, intercept: 0, scale: 1 }, "difference", [-value, value])];
    }
    default: {
      const name = `${state.method}/${state.mode}`;
      const under = [await ct("main", "fixed")];
      if (!data.volumes[name]) return under;
      const colours = state.mode === "jacobian" ? "jacobian" : "viridis";
      const map = await layer(state.mode, await unpack(name), data.volumes[name], colours, RANGES[state.mode]);
      map.opacity = value / 100;
      return [...under, map];
    }
  }
}

// --- panes ---

const OPTIONS = {
  backColor: [0, 0, 0, 1],
  crosshairWidth: 0,
  isColorbar: false,
  isRuler: false,
  isOrientCube: false,
  isOrientationTextVisible: false,
  isRadiologicalConvention: true,
  sagittalNoseLeft: true,
  multiplanarShowRender: 0,
  multiplanarPadPixels: 4,
  dragMode: DRAG_MODE.pan,
  dragAndDropEnabled: false,
  viewModeHotKey: "",
  clipPlaneHotKey: "",
  cycleClipPlaneHotKey: "",
  loadingText: "",
  logLevel: "error",
  show3Dcrosshair: false,
  isAntiAlias: false,
};

const panes = {};

async function openPane(id) {
  const pane = element(id);
  const nv = new Niivue(OPTIONS);
  panes[id] = { pane, nv, marks: pane.querySelector(".marks"), title: pane.querySelector("h3") };
  await nv.attachToCanvas(pane.querySelector(".volume"));
  for (const [name, colours] of Object.entries(COLOURS)) nv.addColormap(name, colours);
  nv.drawScene = function () {
    if (pane.hidden || !this.volumes.length) return "";
    const position = Niivue.prototype.drawScene.call(this);
    drawMarks(panes[id]);
    return position;
  };
  nv.onLocationChange = () => follow(id);
}

function setLayers(nv, volumes) {
  nv.volumes = volumes;
  [nv.back, ...nv.overlays] = volumes;
  nv.updateGLVolume();
}

// Both panes show the same position; the readout shows the values there.
function follow(id) {
  const other = panes[id === "main" ? "reference" : "main"].nv;
  copyPlace(panes[id].nv, other);
  other.drawScene();
  readout();
}

function copyPlace({ scene }, other) {
  other.scene.crosshairPos = [...scene.crosshairPos];
  other.scene.pan2Dxyzmm = [...scene.pan2Dxyzmm];
}

const position = () => Array.from(panes.main.nv.scene.crosshairPos, (fraction, axis) => fraction * size[axis] - 0.5);

function setPlace(index) {
  panes.main.nv.scene.crosshairPos = index.map((value, axis) => Math.min(1, Math.max(0, (value + 0.5) / size[axis])));
}

function goTo(index) {
  setPlace(index);
  panes.main.nv.drawScene();
  follow("main");
}

// --- landmarks ---

const palette = CLASSES.map(([, name]) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim());
const colourOf = (error) => palette[CLASSES.findIndex(([limit]) => error <= limit)];

// Canvas position of a voxel index (x, y, z) on a slice, from NiiVue's position and field of view of the slice.
function place(slice, index, [right, up]) {
  const [left, top, width, height] = slice.leftTopWidthHeight;
  const across = (index[right] * spacing[right] - slice.leftTopMM[0]) / slice.fovMM[0];
  const along = (index[up] * spacing[up] - slice.leftTopMM[1]) / slice.fovMM[1];
  return [left + across * width, top + (1 - along) * height];
}

function drawMarks({ nv, marks, pane }) {
  const { width, height } = nv.canvas;
  marks.width = width;
  marks.height = height;
  const context = marks.getContext("2d");
  const unit = width / pane.clientWidth;
  context.font = `600 ${12 * unit}px system-ui, sans-serif`;
  context.shadowColor = "#000";
  context.shadowBlur = 3 * unit;
  const crosshair = Array.from(nv.scene.crosshairPos, (fraction, axis) => fraction * size[axis] - 0.5);
  const { errors } = shown();
  for (const slice of nv.screenSlices) {
    const plane = Object.values(PLANES).find(({ slice: type, across }) => across !== undefined && type === slice.axCorSag);
    if (!plane) continue;
    const { across } = plane;
    const inPlane = [0, 1, 2].filter((axis) => axis !== across);
    const [left, top, wide, high] = slice.leftTopWidthHeight;
    const box = [Math.min(left, left + wide), top, Math.abs(wide), high];
    context.save();
    context.beginPath();
    context.rect(...box);
    context.clip();
    drawCrosshair(context, unit, box, place(slice, crosshair, inPlane));
    drawSides(context, unit, plane, box, slice);
    if (!state.landmarks) {
      context.restore();
      continue;
    }
    data.landmarks.forEach((landmark, number) => {
      const distance = Math.abs(landmark[across] - crosshair[across]) * spacing[across];
      if (distance > DEPTH) return;
      const [x, y] = place(slice, landmark, inPlane);
      const isChosen = number === state.chosen;
      context.globalAlpha = isChosen ? 1 : 1 - 0.7 * distance / DEPTH;
      context.strokeStyle = context.fillStyle = colourOf(errors.length[number]);
      context.lineWidth = 2 * unit;
      if (pane.id === "main") {
        const [endX, endY] = place(slice, landmark.map((value, axis) => value + errors.vector[number][axis]), inPlane);
        context.beginPath();
        context.moveTo(x, y);
        context.lineTo(endX, endY);
        context.stroke();
      }
      context.beginPath();
      context.arc(x, y, 3 * unit, 0, 2 * Math.PI);
      context.fill();
      if (isChosen) {
        context.beginPath();
        context.arc(x, y, 8 * unit, 0, 2 * Math.PI);
        context.stroke();
      }
    });
    context.restore();
  }
}

// Thin lines with a gap at the position itself. NiiVue's own vanish if they are thinner than a pixel.
function drawCrosshair(context, unit, [left, top, wide, high], [x, y]) {
  const gap = 8 * unit;
  context.save();
  context.strokeStyle = "#6cb6ff";
  context.globalAlpha = 0.7;
  context.lineWidth = unit;
  context.shadowBlur = 0;
  context.beginPath();
  for (const [fromX, fromY, toX, toY] of [[left, y, x - gap, y], [x + gap, y, left + wide, y], [x, top, x, y - gap], [x, y + gap, x, top + high]]) {
    context.moveTo(fromX, fromY);
    context.lineTo(toX, toY);
  }
  context.stroke();
  context.restore();
}

// The patient's sides at the edges of a slice, and a scale bar of 5 cm.
function drawSides(context, unit, { sides }, [left, top, wide, high], slice) {
  const [leftSide, rightSide, topSide, bottomSide] = sides;
  const gap = 7 * unit;
  context.fillStyle = context.strokeStyle = "#d5dbe1";
  for (const [text, x, y, align, baseline] of [
    [leftSide, left + gap, top + high / 2 - 2 * gap, "left", "middle"], [rightSide, left + wide - gap, top + high / 2 - 2 * gap, "right", "middle"],
    [topSide, left + wide / 2 + 2 * gap, top + gap, "center", "top"], [bottomSide, left + wide / 2 + 2 * gap, top + high - gap, "center", "bottom"],
  ]) {
    context.textAlign = align;
    context.textBaseline = baseline;
    context.fillText(text, x, y);
  }
  const bar = 50 * wide / Math.abs(slice.fovMM[0]);
  context.lineWidth = 2 * unit;
  context.beginPath();
  context.moveTo(left + gap, top + high - gap);
  context.lineTo(left + gap + bar, top + high - gap);
  context.stroke();
  context.textAlign = "left";
  context.textBaseline = "bottom";
  context.fillText("5 cm", left + gap, top + high - 1.5 * gap);
}

function chooseLandmark(number) {
  state.chosen = number;
  state.landmarks = true;
  goTo(data.landmarks[number]);
  showLandmarks();
}

// Landmarks by their error in the shown image, largest first.
function ranking() {
  const { errors } = shown();
  return errors ? errors.length.map((_, number) => number).sort((first, second) => errors.length[second] - errors.length[first]) : [];
}

function nextLandmark(step) {
  const order = ranking();
  if (!order.length) return;
  const rank = order.indexOf(state.chosen);
  chooseLandmark(order[rank < 0 ? 0 : (rank + step + order.length) % order.length]);
}

// --- controls and text around the images ---

function put(id, ...children) {
  element(id).replaceChildren(...children);
}

function make(tag, text, attributes = {}) {
  const node = document.createElement(tag);
  node.append(...[text].flat());
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

function choice(id, options, act) {
  put(id, ...Object.entries(options).map(([value, { key, name, note }]) => {
    const button = make("button", [...(key ? [make("kbd", key.toUpperCase())] : []), name, ...(note ? [make("b", note)] : [])], { type: "button", "data-value": value });
    button.addEventListener("click", () => act(value));
    return button;
  }));
}

function press(id, value) {
  for (const button of element(id).children) button.setAttribute("aria-pressed", button.dataset.value === value);
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const percent = (fraction) => (fraction === 0 ? "0" : fraction < 0.0001 ? "< 0.01" : (100 * fraction).toFixed(2)) + " %";

function showFacts() {
  const { errors, folded, jacobian } = shown();
  const rows = [];
  if (errors?.length.length) {
    const sorted = errors.length.toSorted((first, second) => first - second);
    const middle = mean([sorted[Math.floor((sorted.length - 1) / 2)], sorted[Math.ceil((sorted.length - 1) / 2)]]);
    rows.push(["TRE, mean", `${mean(sorted).toFixed(2)} mm`], ["TRE, median", `${middle.toFixed(2)} mm`], ["TRE, largest", `${sorted.at(-1).toFixed(2)} mm`]);
  }
  if (jacobian) rows.push(["Jacobian, 1-99 %", `${jacobian[0].toFixed(2)}-${jacobian[1].toFixed(2)}`], ["Folded in lungs", percent(folded)]);
  put("facts", ...(rows.length ? rows : [["not registered", ""]]).flatMap(([name, value]) => [make("dt", name), make("dd", value)]));
}

function showLandmarks() {
  element("landmarks-on").checked = state.landmarks;
  const order = ranking();
  element("landmarks-number").textContent = order.length || "";
  const { errors } = shown();
  put("landmarks-list", ...order.map((number) => {
    const error = errors.length[number];
    const button = make("button", [`${number + 1}`, make("b", error.toFixed(2))], { type: "button", "aria-pressed": number === state.chosen });
    button.style.borderColor = colourOf(error);
    button.addEventListener("click", () => chooseLandmark(number));
    return make("li", button);
  }));
  element("landmarks-list").querySelector('[aria-pressed="true"]')?.scrollIntoView({ block: "nearest" });
  for (const pane of Object.values(panes)) if (!pane.pane.hidden) drawMarks(pane);
}

function showColours() {
  const isColoured = state.mode in RANGES || state.mode === "difference";
  element("colours").style.visibility = isColoured ? "visible" : "hidden";
  if (!isColoured) return;
  const isDifference = state.mode === "difference";
  const [low, high] = isDifference ? [-sliderValue(), sliderValue()] : RANGES[state.mode];
  const table = panes.main.nv.colormap(isDifference ? "difference" : state.mode === "jacobian" ? "jacobian" : "viridis");
  const stops = Array.from({ length: 65 }, (_, number) => number / 64).map((part) => {
    const [red, green, blue, alpha] = table.slice(4 * Math.round(255 * part));
    return `rgb(${red} ${green} ${blue} / ${state.mode === "jacobian" ? alpha / 255 : 1})`;
  });
  element("colours-bar").style.background = `linear-gradient(to right, ${stops})`;
  const unit = isDifference ? " HU" : state.mode === "jacobian" ? "" : " mm";
  element("colours-name").textContent = {
    difference: "Fixed minus warped", displacement: "|T(x) - x|", nonrigid: "|T(x) - A(x)|", jacobian: "Jacobian determinant",
  }[state.mode];
  element("colours-from").textContent = `${low}${unit}`;
  element("colours-to").textContent = `${high}${unit}`;
  const isAvailable = isDifference || `${state.method}/${state.mode}` in data.volumes;
  element("colours-note").textContent = !isAvailable ? "none for this image" : state.mode === "jacobian" ? "clear: 0.95-1.05, magenta: folds" : "";
}

function showSlider() {
  const slider = MODES[state.mode].slider;
  element("slider-box").style.visibility = slider ? "visible" : "hidden";
  if (!slider) return;
  Object.assign(element("slider"), { min: slider.min, max: slider.max, step: slider.step, value: slider.value });
  element("slider-from").textContent = slider.from;
  element("slider-to").textContent = slider.to();
  element("slider-value").textContent = `${slider.value} ${slider.unit}`;
}

const sliderValue = () => MODES[state.mode].slider?.value;

async function readout() {
  const index = position().map(Math.round);
  const { origin, direction } = data.grid;
  const point = [0, 1, 2].map((row) => origin[row] + [0, 1, 2].reduce((sum, axis) => sum + direction[3 * row + axis] * spacing[axis] * position()[axis], 0));
  const method = state.method;
  const values = [["Position (x, y, z, LPS)", `${point.map((value) => value.toFixed(1)).join(", ")} mm`]];
  for (const [label, name, unit, digits] of [
    ["Fixed", "fixed", "HU", 0], [shown().name, method, "HU", 0], ["DVF", `${method}/displacement`, "mm", 1],
    ["after affine", `${method}/nonrigid`, "mm", 1], ["Jacobian", `${method}/jacobian`, "", 2],
  ]) {
    if (!data.volumes[name]) continue;
    const { slope, intercept, scale } = data.volumes[name];
    const [x, y, z] = index.map((value) => Math.floor(value / scale));
    const code = (await unpack(name))[x + size[0] / scale * (y + size[1] / scale * z)];
    values.push([label, `${(intercept + slope * code).toFixed(digits)} ${unit}`]);
  }
  if (method === state.method) put("readout", ...values.map(([label, value]) => make("div", [make("span", label), value])));
}

// --- user actions ---

async function refresh() {
  const isSide = state.mode === "side";
  const isResized = panes.reference.pane.hidden === isSide;
  panes.reference.pane.hidden = !isSide;
  for (const { nv } of Object.values(panes)) nv.opts.sliceType = PLANES[state.plane].slice;
  const name = shown().name;
  panes.reference.title.textContent = "Fixed";
  panes.main.title.textContent = {
    side: name, overlay: `Fixed and ${name}`, checkerboard: `Fixed and ${name}`, difference: `Fixed minus ${name}`,
    displacement: `DVF of ${name}`, nonrigid: `DVF of ${name}, after affine`, jacobian: `Jacobian of ${name}`,
  }[state.mode];
  for (const [id, value] of [["modes", state.mode], ["planes", state.plane], ["windows", state.window], ["methods", state.method]]) press(id, value);
  showSlider();
  showColours();
  showFacts();
  setLayers(panes.main.nv, await mainLayers());
  if (isSide) {
    copyPlace(panes.main.nv, panes.reference.nv);
    setLayers(panes.reference.nv, [await ct("reference", "fixed")]);
  }
  if (isResized) for (const { nv, pane } of Object.values(panes)) if (!pane.hidden) nv.resizeListener();
  showLandmarks();
  readout();
}

// One refresh at a time; changes during it are shown by another one.
let refreshing = null, again = false;

async function change(changes) {
  Object.assign(state, changes);
  if (refreshing) {
    again = true;
    return refreshing;
  }
  refreshing = (async () => {
    try {
      do {
        again = false;
        await refresh();
      } while (again);
    } finally {
      refreshing = null;
    }
  })();
  return refreshing;
}

function moveSlider(value) {
  const slider = MODES[state.mode].slider;
  if (!slider) return;
  slider.value = Math.min(slider.max, Math.max(slider.min, value));
  change({});
}

function cycle(options, current, step) {
  const names = Object.keys(options);
  return names[(names.indexOf(current) + step + names.length) % names.length];
}

function moveSlice(step) {
  const across = PLANES[state.plane].across ?? 2;
  goTo(position().map((value, axis) => Math.min(size[axis] - 1, Math.max(0, Math.round(value) + (axis === across ? step : 0)))));
}

function zoom(factor) {
  const { scene } = panes.main.nv;
  scene.pan2Dxyzmm = factor ? [...scene.pan2Dxyzmm.slice(0, 3), Math.min(12, Math.max(1, scene.pan2Dxyzmm[3] * factor))] : [0, 0, 0, 1];
  panes.main.nv.drawScene();
  follow("main");
}

const KEYS = {
  p: (step) => change({ plane: cycle(PLANES, state.plane, step) }),
  w: (step) => change({ window: cycle(WINDOWS, state.window, step) }),
  l: () => toggleLandmarks(!state.landmarks),
  b: () => blink(),
  ",": () => nextLandmark(-1),
  ".": () => nextLandmark(1),
  arrowleft: () => moveSlider(sliderValue() - MODES[state.mode].slider?.step),
  arrowright: () => moveSlider(sliderValue() + MODES[state.mode].slider?.step),
  arrowup: () => moveSlice(1),
  arrowdown: () => moveSlice(-1),
  "+": () => zoom(1.25),
  "=": () => zoom(1.25),
  "-": () => zoom(0.8),
  0: () => zoom(null),
  ...Object.fromEntries(Object.entries(MODES).map(([mode, { key }]) => [key, () => change({ mode })])),
  ...Object.fromEntries(data.methods.slice(0, 9).map(({ id }, number) => [number + 1, () => change({ method: id })])),
};

function toggleLandmarks(isOn) {
  state.landmarks = isOn && data.landmarks.length > 0;
  showLandmarks();
}

function blink() {
  MODES.overlay.slider.value = state.mode === "overlay" && MODES.overlay.slider.value === 100 ? 0 : 100;
  change({ mode: "overlay" });
}

function listen() {
  window.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const act = KEYS[event.key.toLowerCase()];
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    act(event.shiftKey ? -1 : 1);
  }, { capture: true });
  element("slider").addEventListener("input", (event) => moveSlider(event.target.valueAsNumber));
  element("landmarks-on").addEventListener("change", (event) => toggleLandmarks(event.target.checked));
}

async function open() {
  put("title", data.pair, ...(data.experiment ? [make("span", ` - ${data.experiment}`)] : []));
  const label = ({ errors }) => (errors?.length.length ? mean(errors.length).toFixed(2) : "");
  element("image-unit").textContent = data.landmarks.length ? "mean TRE, mm" : "";
  choice("modes", MODES, (mode) => change({ mode }));
  choice("planes", PLANES, (plane) => change({ plane }));
  const windows = Object.entries(WINDOWS).map(([name, window]) => [name, { ...window, note: `${window.width}, ${window.level}` }]);
  choice("windows", Object.fromEntries(windows), (window) => change({ window }));
  const methods = data.methods.map((method, number) => [method.id, { key: `${number + 1}`, name: method.name, note: label(method) }]);
  choice("methods", Object.fromEntries(methods), (method) => change({ method }));
  put("landmarks-legend", ...CLASSES.map(([limit], number) => {
    const dot = make("i", "");
    dot.style.background = palette[number];
    return make("span", [dot, limit === Infinity ? `> ${CLASSES.at(-2)[0]} mm` : `\u2264 ${limit} mm`]);
  }), make("div", "Point: landmark in the fixed image. Line: remaining error, x_M - T(x_F), to scale. List: its length in mm."));
  put("help", ...HELP.map(([keys, action]) => make("span", [...keys.split(" ").map((key) => make("kbd", key)), action])));
  listen();
  // These volumes unpack while the shaders are compiled.
  unpack("fixed");
  unpack(state.method);
  for (const id of ["reference", "main"]) await openPane(id);
  setPlace(data.start);
  await change({});
  element("message").hidden = true;
  document.body.dataset.ready = "true";
}

open().catch((error) => {
  element("message").hidden = false;
  element("message").textContent = `Cannot show the images: ${error.message}. This page needs a browser with WebGL 2.`;
  throw error;
});
