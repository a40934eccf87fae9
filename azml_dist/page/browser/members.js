function showMembers() {
  const group = sheet.group;
  if (!group) return;
  if (group.kind === "pipeline") showGraph(group);
  else showTrials(group);
}

function showTrials(group) {
  const rows = new Map(), threads = new Map();
  const light = (name, on) => {
    for (const found of [rows.get(name), threads.get(name)]) if (found) found.classList.toggle("lit", on);
  };
  const metric = group.metric;
  const columns = [["trial", (one) => one.number], ...group.names.map((name) => [name, (one) => one.values[name]]),
    ...(metric ? [[metric, (one) => one.metric]] : []), ["status", (one) => one.status], ["took", (one) => one.took], ["run", (one) => one.name]];
  const body = el("tbody", {});
  const fill = (members) => body.replaceChildren(...members.map((one) => rows.get(one.name)));
  for (const one of group.members) {
    rows.set(one.name, el("tr", { class: one.best ? "best" : null, onmouseenter: () => light(one.name, true), onmouseleave: () => light(one.name, false) },
      columns.map(([name, of]) => {
        const value = of(one);
        if (name === "status") return el("td", { class: "t-" + tone(one.status) }, one.status + (one.best ? ", best" : "") + (one.error ? ": " + one.error : ""));
        if (name === "took") return el("td", { class: "num" }, seconds(value));
        return el("td", { class: typeof value === "number" ? "num" : null }, value === null || value === undefined ? "-" : typeof value === "number" ? number(value) : String(value));
      })));
  }
  let sorted = null, up = true;
  const order = (at) => {
    up = sorted === at ? !up : true;
    sorted = at;
    const of = columns[at][1];
    fill([...group.members].sort((a, b) => (up ? 1 : -1) * compare(of(a), of(b))));
  };
  fill(group.members);
  section("trials", "Trials",
    group.objective ? el("p", { class: "dim" }, group.objective) : null,
    group.members.length > 1 ? el("div", { class: "scroll" }, threadsPicture(group, threads, light)) : null,
    el("div", { class: "board" }, el("table", {}, el("thead", {}, el("tr", {}, columns.map(([name, of], at) => el("th", { class: name === "took" || typeof of(group.members[0] || {values: {}}) === "number" ? "num" : null }, el("button", { type: "button", onclick: () => order(at) }, name))))), body)));
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  if (a === null || a === undefined) return b === null || b === undefined ? 0 : 1;
  if (b === null || b === undefined) return -1;
  return String(a).localeCompare(String(b));
}

// Parallel coordinates: an axis for each hyperparameter and one for the metric, a line for each trial.
function threadsPicture(group, threads, light) {
  const axes = group.names.map((name) => axisOf(name, group.members.map((one) => one.values[name])));
  if (group.metric && group.members.some((one) => one.metric !== null)) axes.push(axisOf(group.metric, group.members.map((one) => one.metric)));
  const width = Math.max(1000, axes.length * 170), height = 320, top = 34, bottom = 24, left = 104;
  const x = (at) => axes.length > 1 ? left + at * (width - 2 * left) / (axes.length - 1) : width / 2;
  const y = (share) => height - bottom - share * (height - top - bottom);
  const picture = svg("svg", { viewBox: "0 0 " + width + " " + height, width: Math.min(width, 1100), role: "img", "aria-label": "parallel coordinates of the trials" });
  const drawn = [...group.members].sort((a, b) => Number(a.best) - Number(b.best));
  for (const one of drawn) {
    const values = axes.map((axis) => axis.share(axis.name === group.metric && axis === axes[axes.length - 1] ? one.metric : one.values[axis.name]));
    let path = "", pen = "M";
    values.forEach((share, at) => {
      if (share === null) { pen = "M"; return; }
      path += pen + x(at).toFixed(1) + " " + y(share).toFixed(1);
      pen = "L";
    });
    if (!path) continue;
    const kind = one.best ? " best" : one.status === "Failed" ? " failed" : "";
    const thread = svg("path", { class: "thread" + kind, d: path, onmousemove: (event) => { light(one.name, true); showTip(event, threadText(group, one)); }, onmouseleave: () => { light(one.name, false); hideTip(); } });
    threads.set(one.name, thread);
    picture.append(thread);
  }
  axes.forEach((axis, at) => {
    picture.append(svg("line", { class: "axis", x1: x(at), x2: x(at), y1: top, y2: height - bottom }), svg("text", { class: "b", x: x(at), y: 16, "text-anchor": "middle" }, short(axis.name)));
    // The words of the first axis are left of it, where no line runs.
    const side = at === 0 && axes.length > 1 ? { x: x(at) - 8, "text-anchor": "end" } : { x: x(at) + 8 };
    for (const [share, text] of axis.marks) picture.append(svg("text", { class: "over", ...side, y: y(share) + 4 }, text.length > 14 ? text.slice(0, 13) + "…" : text));
  });
  return picture;
}

const threadText = (group, one) => ["trial " + one.number + ": " + one.status, ...group.names.filter((name) => name in one.values).map((name) => name + " = " + one.values[name]), ...(group.metric && one.metric !== null ? [group.metric + " = " + number(one.metric)] : [])].join("\n");

function axisOf(name, values) {
  const known = values.filter((one) => one !== null && one !== undefined);
  if (known.length && known.every((one) => typeof one === "number")) {
    const low = Math.min(...known), high = Math.max(...known), log = low > 0 && high / low > 50;
    const place = (value) => log ? Math.log(value) : value;
    const span = place(high) - place(low);
    const share = (value) => typeof value === "number" ? span ? (place(value) - place(low)) / span : 0.5 : null;
    const marks = [...new Set(known)].length <= 6 ? [...new Set(known)] : log ? [low, Math.sqrt(low * high), high] : ticks(low, high, 4);
    return { name, share, marks: marks.map((one) => [share(one), compact(one)]).filter(([at]) => at >= -0.01 && at <= 1.01) };
  }
  const names = [...new Set(known.map(String))].sort();
  const share = (value) => value === null || value === undefined ? null : names.length > 1 ? names.indexOf(String(value)) / (names.length - 1) : 0.5;
  return { name, share, marks: names.slice(0, 12).map((one) => [share(one), one]) };
}

// The steps of a pipeline, each to the right of those whose outputs it reads.
function showGraph(group) {
  const depth = new Map();
  const members = new Map(group.members.map((one) => [one.label, one]));
  const above = (label) => group.links.filter((one) => one.to === label && members.has(one.from)).map((one) => one.from);
  const deep = (label, trail) => {
    if (depth.has(label)) return depth.get(label);
    if (trail.includes(label)) return 0;
    const found = Math.max(-1, ...above(label).map((one) => deep(one, [...trail, label]))) + 1;
    depth.set(label, found);
    return found;
  };
  group.members.forEach((one) => deep(one.label, []));
  const columns = [];
  for (const one of group.members) (columns[depth.get(one.label)] ||= []).push(one);
  const wide = 190, high = 58, across = 90, down = 22;
  const tallest = Math.max(...columns.map((column) => column.length));
  const width = columns.length * (wide + across) - across + 8, height = tallest * (high + down) - down + 8;
  const picture = svg("svg", { viewBox: "0 0 " + width + " " + height, width: Math.min(width, 1100), role: "img", "aria-label": "graph of the steps" });
  const place = new Map();
  columns.forEach((column, at) => column.forEach((one, row) => place.set(one.label, [4 + at * (wide + across), 4 + (row + (tallest - column.length) / 2) * (high + down)])));
  picture.append(svg("defs", {}, svg("marker", { id: "arrow", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto" }, svg("path", { class: "head", d: "M0 0L8 4L0 8z" }))));
  for (const one of group.links) {
    const from = place.get(one.from), to = place.get(one.to);
    if (!from || !to) continue;
    const x0 = from[0] + wide, y0 = from[1] + high / 2, x1 = to[0] - 2, y1 = to[1] + high / 2, bend = (x1 - x0) / 2;
    picture.append(svg("path", { class: "edge", "marker-end": "url(#arrow)", d: `M${x0} ${y0}C${x0 + bend} ${y0} ${x1 - bend} ${y1} ${x1} ${y1}` },
      svg("title", {}, one.from + "." + one.output + " → " + one.to + "." + one.input)));
  }
  for (const one of group.members) {
    const [x, y] = place.get(one.label);
    const log = sheet.logs.findIndex((log) => log.member === one.label);
    picture.append(svg("g", {},
      svg("rect", { class: "box", x, y, width: wide, height: high, rx: 8 }), svg("rect", { class: "f-" + tone(one.status), x, y, width: 6, height: high, rx: 3 }),
      svg("text", { class: "b", x: x + 16, y: y + 23 }, one.label.length > 24 ? one.label.slice(0, 23) + "…" : one.label),
      svg("text", { class: "dim", x: x + 16, y: y + 43 }, one.status + (one.took !== null ? ", " + seconds(one.took) : "")),
      svg("rect", { class: "hit", x, y, width: wide, height: high, rx: 8, tabindex: 0, "aria-label": one.label + ": " + one.status, onclick: () => log >= 0 && goTo(log), onkeydown: (event) => event.key === "Enter" && log >= 0 && goTo(log), onmousemove: (event) => showTip(event, one.label + ": " + one.status + (one.error ? "\n" + one.error : "") + "\nrun " + one.name), onmouseleave: hideTip })));
  }
  section("steps", "Steps", group.links.length ? null : el("p", { class: "dim" }, group.members.length > 1 ? group.no_links : ""),
    el("div", { class: "scroll" }, picture),
    el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, ["step", "status", "took", "run"].map((one) => el("th", {}, one)))),
      el("tbody", {}, group.members.map((one) => el("tr", {}, el("td", {}, one.label), el("td", { class: "t-" + tone(one.status) }, one.status + (one.error ? ": " + one.error : "")), el("td", { class: "num" }, seconds(one.took)), el("td", { class: "mono" }, one.name)))))));
}
