const LANES = 3;

// A row for each rank or member: when it started, wrote its first line, did its steps, failed or was stopped.
function showTimeline() {
  const rows = sheet.rows.length ? sheet.rows : sheet.ranks;
  if (sheet.no_timeline) { section("timeline", "Timeline", el("p", { class: "dim" }, sheet.no_timeline)); return; }
  if (!rows.length) return;
  const end = Math.max(sheet.span, ...rows.map((row) => row.end || 0), 0.1);
  const views = [["whole run", [0, end * 1.02]]];
  const firstFailure = sheet.first_failure;
  if (!sheet.rows.length && firstFailure !== null && end > 3) {
    const around = Math.max(0.5, end - firstFailure);
    views.push(["around the failure", [Math.max(0, firstFailure - around), end + around * 0.2]]);
  }
  const board = el("div", { class: "board" });
  const buttons = views.map(([name, span], at) => el("button", { type: "button", "aria-pressed": at === 0, onclick: () => draw(at) }, name));
  const draw = (at) => {
    buttons.forEach((button, place) => button.setAttribute("aria-pressed", String(place === at)));
    board.replaceChildren(timelinePicture(rows, views[at][1]));
    // Of many rows, the one that matters is in sight.
    const place = rows.findIndex(isBad);
    board.scrollTop = place < 0 ? 0 : board.scrollHeight * place / rows.length - board.clientHeight / 2;
  };
  const has = (test) => rows.some((row) => row.bars.some(test) || test(row));
  section("timeline", "Timeline",
    sheet.told ? el("p", {}, sheet.told) : null,
    views.length > 1 ? el("div", { class: "bar" }, buttons) : null, board,
    legend([["i-start", "no line yet"], ["i-live", sheet.tone === "live" ? "running" : ""], ["i-good", "completed"], ["i-warn", "stopped"],
      ["i-bad", "failed"], ["i-silent", "silent"], ["i-first", "first line"], ["i-step", "step"]].filter(([kind, text]) => text && has((one) => ({
      "i-start": one.kind === "start", "i-live": one.kind === "live", "i-good": one.kind === "good", "i-warn": one.kind === "warn",
      "i-bad": one.kind === "bad", "i-silent": one.kind === "silent", "i-first": one.first_line !== undefined && one.first_line !== null, "i-step": one.steps && one.steps.length,
    })[kind]))),
    timelineTable(rows));
  draw(0);
}

function timelinePicture(rows, [from, to]) {
  const left = 112, width = 1090, height = rows.length <= 24 ? 24 : rows.length <= 96 ? 13 : rows.length <= 200 ? 8 : 4;
  const seen = sheet.moments.filter((event) => event.at >= from && event.at <= to).sort((a, b) => a.at - b.at);
  const top = 26 + 14 * Math.min(LANES, Math.max(1, seen.length)), pad = height > 10 ? 3 : height > 5 ? 1 : 0.5, total = top + rows.length * height + 6;
  const x = (at) => left + Math.max(0, Math.min(1, (at - from) / (to - from))) * (width - left - 16);
  const picture = svg("svg", { viewBox: "0 0 " + width + " " + total, width: "100%", role: "img", "aria-label": "timeline of " + rows.length + " rows" });
  for (const at of moments(from, to, 8)) {
    picture.append(svg("line", { class: "rule", x1: x(at), x2: x(at), y1: 22, y2: total }),
      svg("text", { class: "dim", x: x(at), y: 16, "text-anchor": "middle" }, to - from < 120 ? number(at) + " s" : clock(at)));
  }
  const firsts = [], steps = [], fails = [];
  rows.forEach((row, place) => {
    const y = top + place * height, middle = y + height / 2;
    if (height > 10 || isBad(row) || place % Math.ceil(14 / height) === 0 && !nearBad(rows, place, Math.ceil(14 / height))) {
      picture.append(svg("text", { class: isBad(row) ? "bad" : "dim", x: left - 10, y: Math.min(middle + 4, total - 3), "text-anchor": "end" }, short(row.label)));
    }
    for (const bar of row.bars) {
      const begin = Math.max(bar.begin, from), finish = Math.min(bar.end, to);
      if (finish >= begin) picture.append(svg("rect", { class: "f-" + bar.kind, x: x(begin), y: y + pad, width: Math.max(1.5, x(finish) - x(begin)), height: height - 2 * pad, rx: height > 10 ? 2 : 0 }));
    }
    const inside = (at) => at !== null && at >= from && at <= to;
    const mark = (at) => "M" + x(at).toFixed(1) + " " + (y + pad).toFixed(1) + "v" + (height - 2 * pad).toFixed(1);
    if (inside(row.first_line)) firsts.push(mark(row.first_line));
    for (const [at] of row.steps) if (inside(at)) steps.push(mark(at));
    if (inside(row.failed)) fails.push(mark(row.failed));
  });
  if (steps.length) picture.append(svg("path", { class: "ticks", d: steps.join("") }));
  if (firsts.length) picture.append(svg("path", { class: "firsts", d: firsts.join("") }));
  if (fails.length) picture.append(svg("path", { class: "fails", d: fails.join("") }));
  const lanes = [];
  for (const event of seen) {
    const right = x(event.at) > width * 0.7, long = event.text.length * 7 + 10;
    const begin = right ? x(event.at) - long : x(event.at);
    let lane = lanes.findIndex((end) => end < begin);
    if (lane < 0) lane = lanes.length < LANES ? lanes.length : LANES - 1;
    lanes[lane] = begin + long;
    picture.append(svg("line", { class: event.kind, x1: x(event.at), x2: x(event.at), y1: 20, y2: total }),
      svg("text", { class: event.kind === "cut" ? "bad" : "b", x: x(event.at) + (right ? -5 : 5), y: 32 + lane * 14, "text-anchor": right ? "end" : "start" }, event.text));
  }
  const rowAt = (event) => {
    const box = picture.getBoundingClientRect();
    return rows[Math.floor(((event.clientY - box.top) * total / box.height - top) / height)];
  };
  picture.addEventListener("mousemove", (event) => { const row = rowAt(event); row ? showTip(event, rankText(row)) : hideTip(); });
  picture.addEventListener("mouseleave", hideTip);
  picture.addEventListener("click", (event) => { const row = rowAt(event); if (row && row.log !== null) goTo(row.log); });
  return picture;
}

const isBad = (row) => row.failed !== null || Boolean(row.blame);
const short = (label) => label.length > 16 ? label.slice(0, 15) + "…" : label;
const nearBad = (rows, place, reach) => rows.slice(Math.max(0, place - reach), place + reach + 1).some(isBad);

function timelineTable(rows) {
  const cells = (row) => [row.label, seconds(row.start), seconds(row.first_line), row.steps.length ? String(row.steps[row.steps.length - 1][1]) : "", seconds(row.end), row.ended];
  return el("details", {}, el("summary", {}, "as a table"), el("div", { class: "board" }, el("table", {},
    el("thead", {}, el("tr", {}, ["", "started", "first line", "last step", "ended", "how"].map((one) => el("th", {}, one)))),
    el("tbody", {}, rows.map((row) => el("tr", {}, cells(row).map((one) => el("td", {}, one))))))));
}
