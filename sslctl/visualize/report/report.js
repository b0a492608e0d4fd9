// Pointing at a chart shows the values there. Nothing is fetched; text is set as text.
"use strict";
for (const svg of document.querySelectorAll("svg.chart")) {
  const lines = [...svg.querySelectorAll("g.line")].map((g) => ({
    points: JSON.parse(g.dataset.points), name: g.dataset.name, spot: g.querySelector(".spot"),
  }));
  const hair = svg.querySelector(".hair"), tip = svg.querySelector(".tip");
  const hide = () => {
    hair.setAttribute("visibility", "hidden");
    tip.textContent = "";
    for (const line of lines) line.spot.setAttribute("visibility", "hidden");
  };
  const show = (event) => {
    const box = svg.getBoundingClientRect(), view = svg.viewBox.baseVal;
    const x = ((event.clientX - box.left) / box.width) * view.width;
    const words = [];
    let at = null;
    for (const line of lines) {
      if (!line.points.length) continue;
      const near = line.points.reduce((a, b) => (Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a));
      line.spot.setAttribute("cx", near[0]);
      line.spot.setAttribute("cy", near[1]);
      line.spot.setAttribute("visibility", "visible");
      at = at ?? near[0];
      words.push(lines.length > 1 ? near[3] : near[3] + " at step " + near[2]);
    }
    if (at === null) return;
    hair.setAttribute("x1", at);
    hair.setAttribute("x2", at);
    hair.setAttribute("visibility", "visible");
    const late = at > view.width / 2;
    tip.setAttribute("x", late ? at - 6 : at + 6);
    tip.setAttribute("text-anchor", late ? "end" : "start");
    tip.textContent = words.join(" · ");
  };
  svg.addEventListener("pointermove", show);
  svg.addEventListener("pointerdown", show);
  svg.addEventListener("pointerleave", hide);
  hide();
}
