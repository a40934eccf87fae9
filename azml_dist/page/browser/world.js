// The plan: a box for each node, a square for each rank.
function showWorld() {
  if (!sheet.ranks.length) return;
  const nodes = new Map();
  for (const one of sheet.ranks) nodes.set(one.node, [...(nodes.get(one.node) || []), one]);
  const widest = Math.max(...[...nodes.values()].map((ranks) => ranks.length));
  const many = sheet.ranks.length > 64;
  const cell = many ? 16 : 34, gap = many ? 3 : 6, columns = Math.min(widest, many ? 16 : 8);
  const width = Math.max(columns * (cell + gap) - gap + 20, 76);
  const across = Math.max(1, Math.floor(1100 / (width + 12)));
  const rows = Math.ceil(widest / columns), height = rows * (cell + gap) - gap + 36;
  const total = Math.ceil(nodes.size / across) * (height + 12);
  const picture = svg("svg", { width: Math.min(across, nodes.size) * (width + 12), height: total, role: "img", "aria-label": sheet.world });
  const ring = svg("rect", { class: "chosen", width: cell + 4, height: cell + 4, rx: 5, visibility: "hidden" });
  const places = new Map();
  [...nodes.entries()].forEach(([node, ranks], at) => {
    const left = (at % across) * (width + 12), top = Math.floor(at / across) * (height + 12) + 1;
    picture.append(svg("rect", { class: "box", x: left + 1, y: top, width, height, rx: 7 }),
      svg("text", { class: "dim", x: left + 11, y: top + 18 }, "node " + node));
    ranks.forEach((one, place) => {
      const x = left + 11 + (place % columns) * (cell + gap), y = top + 26 + Math.floor(place / columns) * (cell + gap);
      const words = rankText(one);
      places.set(one.log, [x, y]);
      picture.append(svg("rect", { class: "f-" + TONE[one.outcome], x, y, width: cell, height: cell, rx: 4 }));
      if (!many) picture.append(svg("text", { x: x + cell / 2, y: y + cell / 2 + 4, "text-anchor": "middle" }, String(one.rank)));
      if (one.blame) picture.append(svg("rect", { class: "ring", x: x - 2, y: y - 2, width: cell + 4, height: cell + 4, rx: 5 }));
      picture.append(svg("rect", {
        class: "hit", x, y, width: cell, height: cell, rx: 4, tabindex: many ? null : 0, "aria-label": words,
        onclick: () => one.log !== null && goTo(one.log), onkeydown: (event) => event.key === "Enter" && one.log !== null && goTo(one.log),
        onmousemove: (event) => showTip(event, words), onmouseleave: hideTip,
      }));
    });
  });
  picture.append(ring);
  watchers.push((log) => {
    const place = places.get(log);
    ring.setAttribute("visibility", place ? "visible" : "hidden");
    if (place) { ring.setAttribute("x", place[0] - 2); ring.setAttribute("y", place[1] - 2); }
  });
  const seen = new Set(sheet.ranks.map((one) => one.outcome));
  const words = { completed: "completed", failed: "failed", stopped: "stopped", running: "running", waiting: "not started yet", never: "never started", unknown: "how it ended is not known" };
  section("plan", "Plan",
    el("p", { class: "dim" }, sheet.world + (sheet.ranks.some((one) => one.log !== null) ? ". Select a rank to see its log." : ".")),
    sheet.command ? copyable(sheet.command) : null,
    el("div", { class: "scroll" }, picture),
    legend([...Object.keys(words).filter((one) => seen.has(one)).map((one) => ["i-" + TONE[one], words[one]])]));
}

function rankText(one) {
  const rows = [one.rank === undefined ? one.label : one.label + " on node " + one.node, one.ended];
  if (one.blame) rows.push(one.blame);
  if (one.start !== null) rows.push("started at " + seconds(one.start));
  if (one.first_line !== null) rows.push("first line at " + seconds(one.first_line));
  if (one.steps.length) rows.push("step " + one.steps[one.steps.length - 1][1] + " at " + seconds(one.steps[one.steps.length - 1][0]));
  if (one.last_line !== null) rows.push("last line at " + seconds(one.last_line));
  if (one.end !== null) rows.push("ended at " + seconds(one.end));
  if (one.quiet !== null) rows.push("silent for " + seconds(one.quiet) + " before it was stopped");
  return rows.join("\n");
}
