"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const plane = document.getElementById("plane"), canvas = plane.querySelector("canvas"), pen = canvas.getContext("2d");
const card = document.getElementById("card"), sprite = document.getElementById("sprite");
const pictures = document.getElementById("pictures"), hidden = new Set();
const n = data.x.length, MARGIN = 24;
let view = { scale: 1, left: 0, top: 0 }, near = -1, drag = null;

const colour = (label) => label < 0 ? "hsl(215 60% 50%)" : `hsl(${(label * 137.508) % 360} 65% ${label % 2 ? 42 : 54}%)`;
const side = () => Math.min(canvas.clientWidth, canvas.clientHeight) - 2 * MARGIN;
const place = (i) => [
  view.left + view.scale * (MARGIN + data.x[i] * side()),
  view.top + view.scale * (MARGIN + (1 - data.y[i]) * side()),
];
const tile = (i) => [i % data.columns * data.thumb, Math.floor(i / data.columns) * data.thumb];

function draw() {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = canvas.clientWidth * ratio;
  canvas.height = canvas.clientHeight * ratio;
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, canvas.clientWidth, canvas.clientHeight);
  const size = pictures.checked ? Math.min(data.thumb, 10 + 6 * view.scale) : 3.2;
  for (let i = 0; i < n; i++) {
    if (hidden.has(data.label[i])) continue;
    const [x, y] = place(i);
    pen.fillStyle = colour(data.label[i]);
    if (pictures.checked) {
      pen.fillRect(x - size / 2 - 1.5, y - size / 2 - 1.5, size + 3, size + 3);
      pen.drawImage(sprite, ...tile(i), data.thumb, data.thumb, x - size / 2, y - size / 2, size, size);
    } else {
      pen.beginPath();
      pen.arc(x, y, i === near ? 2 * size : size, 0, 7);
      pen.fill();
    }
  }
}

function look(event) {
  const box = canvas.getBoundingClientRect(), mx = event.clientX - box.left, my = event.clientY - box.top;
  let best = 20 ** 2, found = -1;
  for (let i = 0; i < n; i++) {
    if (hidden.has(data.label[i])) continue;
    const [x, y] = place(i), d = (x - mx) ** 2 + (y - my) ** 2;
    if (d < best) [best, found] = [d, i];
  }
  if (found !== near) { near = found; draw(); }
  card.hidden = near < 0;
  if (near < 0) return;
  const [left, top] = tile(near), big = 2;
  const shown = card.querySelector("i");
  shown.style.cssText = `width:${big * data.thumb}px;height:${big * data.thumb}px;background-image:url(${sprite.src});` +
    `background-position:${-big * left}px ${-big * top}px;background-size:${big * sprite.naturalWidth}px`;
  const label = data.label[near];
  card.querySelector("b").textContent = (label < 0 ? "" : data.classes[label] + " · ") + data.names[near];
  card.style.left = `${Math.min(mx + 14, canvas.clientWidth - card.offsetWidth - 4)}px`;
  card.style.top = `${Math.min(my + 14, canvas.clientHeight - card.offsetHeight - 4)}px`;
}

canvas.addEventListener("pointermove", (event) => {
  if (drag) {
    view.left += event.clientX - drag[0];
    view.top += event.clientY - drag[1];
    drag = [event.clientX, event.clientY];
    draw();
  } else look(event);
});
canvas.addEventListener("pointerdown", (event) => {
  drag = [event.clientX, event.clientY];
  canvas.setPointerCapture(event.pointerId);
});
canvas.addEventListener("pointerup", () => { drag = null; });
canvas.addEventListener("pointerleave", () => { near = -1; card.hidden = true; draw(); });
canvas.addEventListener("dblclick", () => { view = { scale: 1, left: 0, top: 0 }; draw(); });
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  const box = canvas.getBoundingClientRect(), mx = event.clientX - box.left, my = event.clientY - box.top;
  const scale = Math.min(200, Math.max(0.5, view.scale * Math.exp(-event.deltaY / 400)));
  view.left = mx - (mx - view.left) * scale / view.scale;
  view.top = my - (my - view.top) * scale / view.scale;
  view.scale = scale;
  draw();
}, { passive: false });

for (const [label, name] of data.classes.entries()) {
  const row = document.createElement("label"), box = document.createElement("input"), dot = document.createElement("span");
  const count = data.label.filter((other) => other === label).length;
  if (!count) continue;
  const many = document.createElement("small");
  box.type = "checkbox";
  box.checked = true;
  box.addEventListener("change", () => { if (box.checked) hidden.delete(label); else hidden.add(label); draw(); });
  dot.style.background = colour(label);
  many.textContent = ` ${count}`;
  row.append(box, dot, name, many);
  document.getElementById("classes").append(row);
}
pictures.addEventListener("change", draw);
new ResizeObserver(draw).observe(plane);
sprite.decode().then(draw);
