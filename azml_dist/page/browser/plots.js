function showPlots(id, title, plots, nothing) {
  if (!plots.length) {
    if (nothing) section(id, title, el("p", { class: "dim" }, nothing));
    return;
  }
  section(id, title, el("div", { class: "plots" }, plots.map(plotCard)));
}

function plotCard(plot) {
  if (plot.series.length === 1 && plot.series[0].points.length === 1) {
    return el("div", { class: "plot" }, el("h3", {}, plot.title), el("p", { class: "figure" }, number(plot.series[0].points[0][1])));
  }
  const last = plot.series.length === 1 ? plot.series[0].points.slice(-1)[0] : null;
  return el("div", { class: "plot" },
    el("h3", {}, plot.title, plot.unit ? el("span", { class: "dim" }, " in " + plot.unit) : null, last ? el("span", { class: "dim" }, "  last " + (last[1] === null ? "not finite" : number(last[1]))) : null),
    plotPicture(plot),
    plot.series.length > 1 ? legend(plot.series.slice(0, 16).map((one, at) => ["b" + (at % 8), one.label])) : null,
    plot.note ? el("p", { class: "dim" }, plot.note) : null);
}

function plotPicture(plot) {
  const width = 340, height = 200, left = 52, bottom = 36, top = 8;
  const points = plot.series.flatMap((one) => one.points);
  const known = points.filter((one) => one[1] !== null);
  const picture = svg("svg", { viewBox: "0 0 " + width + " " + height, width: "100%", role: "img", "aria-label": plot.title });
  if (!known.length) {
    picture.append(svg("text", { class: "dim", x: width / 2, y: height / 2, "text-anchor": "middle" }, "no finite value"));
    return picture;
  }
  const range = (values) => {
    let low = Infinity, high = -Infinity;
    for (const value of values) { if (value < low) low = value; if (value > high) high = value; }
    return low === high ? [low - (Math.abs(low) || 1) * 0.1, high + (Math.abs(high) || 1) * 0.1] : [low, high];
  };
  const [x0, x1] = range(points.map((one) => one[0]));
  let [y0, y1] = range(known.map((one) => one[1]));
  if (y0 > 0 && y0 < y1 * 0.25) y0 = 0;
  const x = (value) => left + (value - x0) / (x1 - x0) * (width - left - 10);
  const y = (value) => height - bottom - (value - y0) / (y1 - y0) * (height - bottom - top);
  for (const at of ticks(y0, y1, 4)) {
    picture.append(svg("line", { class: "rule", x1: left, x2: width - 10, y1: y(at), y2: y(at) }), svg("text", { class: "dim", x: left - 6, y: y(at) + 4, "text-anchor": "end" }, compact(at)));
  }
  for (const at of ticks(x0, x1, 5).filter((at) => plot.x !== "step" || Number.isInteger(at))) {
    picture.append(svg("text", { class: "dim", x: Math.min(x(at), width - 14), y: height - bottom + 16, "text-anchor": "middle" }, compact(at)));
  }
  picture.append(svg("text", { class: "dim", x: width - 10, y: height - 3, "text-anchor": "end" }, plot.x), svg("path", { class: "axis", d: "M" + left + " " + top + "V" + (height - bottom) + "H" + (width - 10) }));
  plot.series.forEach((one, at) => {
    let path = "", pen = "M";
    for (const [px, py] of one.points) {
      if (py === null) { pen = "M"; continue; }
      path += pen + x(px).toFixed(1) + " " + y(py).toFixed(1);
      pen = "L";
    }
    if (path) picture.append(svg("path", { class: "curve c" + (at % 8), d: path }));
    if (one.points.length <= 30) for (const [px, py] of one.points) if (py !== null) picture.append(svg("circle", { class: "dot d" + (at % 8), cx: x(px), cy: y(py), r: 2.2 }));
  });
  picture.addEventListener("mousemove", (event) => {
    const box = picture.getBoundingClientRect(), at = x0 + ((event.clientX - box.left) * width / box.width - left) / (width - left - 10) * (x1 - x0);
    const rows = plot.series.slice(0, 16).map((one) => [one.label, nearestPoint(one.points, at)]).filter((row) => row[1]);
    if (rows.length) showTip(event, plot.x + " " + number(rows[0][1][0]) + "\n" + rows.map(([label, point]) => (plot.series.length > 1 ? label + ": " : "") + number(point[1])).join("\n"));
  });
  picture.addEventListener("mouseleave", hideTip);
  return picture;
}

function compact(value) {
  const size = Math.abs(value);
  if (size >= 1e9) return number(value / 1e9) + "G";
  if (size >= 1e6) return number(value / 1e6) + "M";
  if (size >= 1e4) return number(value / 1e3) + "k";
  return Number(value.toPrecision(4)).toString();
}

function nearestPoint(points, at) {
  let best = null;
  for (const point of points) if (!best || Math.abs(point[0] - at) < Math.abs(best[0] - at)) best = point;
  return best;
}
